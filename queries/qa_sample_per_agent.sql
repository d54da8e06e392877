-- name: qa_sample_per_agent
-- description: A random, repeatable sample of done tickets per agent for review, with who falls short of it.
-- param seed: text = 'qa' -- another seed draws another sample; write it down with the review
-- param per_agent: int = 5 -- tickets per agent
-- param since: timestamp = now() - interval '7 days' -- tickets done at or after this time
-- param until: timestamp = now() -- tickets done before this time
-- param min_messages: int = 2 -- shorter tickets have nothing to review
-- max_age: 1d

-- The draw of a ticket depends on the seed and its id only. A ticket that arrives late takes a place by its own draw and
-- moves at most the last pick of its agent; all others keep their order, so that a review under way stays valid.
-- `shortfall` is how many tickets an agent lacks. It cannot list who has none at all, since a row needs a ticket:
-- qa_sample_shortfall does. The counts are joined and not a second window function beside the draw, because a window
-- with the row number alone keeps only $per_agent rows of each agent and sorts nothing else.
WITH eligible AS (
    SELECT ticket_id, assigned_user_ids[1] AS agent_id, satisfaction_score
    FROM tickets
    WHERE status = 'done'
      AND last_done_at >= $since
      AND last_done_at < $until
      AND message_count >= $min_messages
      AND assigned_user_ids[1] IS NOT NULL
      AND spam IS DISTINCT FROM true
),
counts AS (
    SELECT agent_id, count(*) AS eligible FROM eligible GROUP BY agent_id
),
draws AS (
    SELECT
        ticket_id,
        agent_id,
        satisfaction_score,
        row_number() OVER (PARTITION BY agent_id ORDER BY sample_key($seed, ticket_id), ticket_id) AS pick
    FROM eligible
),
picks AS (
    SELECT * FROM draws WHERE pick <= $per_agent
)
SELECT
    picks.ticket_id,
    user_name(picks.agent_id) AS agent,
    picks.pick,
    least(counts.eligible, $per_agent) AS drawn,
    counts.eligible,
    greatest($per_agent - counts.eligible, 0) AS shortfall,
    picks.satisfaction_score
FROM picks
JOIN counts ON counts.agent_id = picks.agent_id
ORDER BY picks.agent_id, picks.pick
