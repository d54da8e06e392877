-- name: qa_sample_per_agent
-- description: A random, repeatable sample of done tickets per agent for review.
-- param seed: text = 'qa' -- another seed draws another sample; write it down with the review
-- param per_agent: int = 5 -- tickets per agent
-- param since: timestamp = now() - interval '7 days' -- tickets done at or after this time
-- param until: timestamp = now() -- tickets done before this time
-- param min_messages: int = 2 -- shorter tickets have nothing to review
-- max_age: 1d

-- The draw of a ticket depends on the seed and its id only. A ticket that arrives late takes a place by its own draw and
-- moves at most the last pick of its agent; all others keep their order, so that a review under way stays valid.
-- `drawn` beside `eligible` shows agents with fewer tickets than asked for.
WITH drawn AS (
    SELECT
        ticket_id,
        assigned_user_ids[1] AS agent_id,
        first_done_at,
        satisfaction_score,
        row_number() OVER (
            PARTITION BY assigned_user_ids[1]
            ORDER BY sample_key($seed, ticket_id), ticket_id
        ) AS pick,
        count(*) OVER (PARTITION BY assigned_user_ids[1]) AS eligible
    FROM tickets
    WHERE status = 'done'
      AND last_done_at >= $since
      AND last_done_at < $until
      AND message_count >= $min_messages
      AND assigned_user_ids[1] IS NOT NULL
      AND spam IS DISTINCT FROM true
)
SELECT
    ticket_id,
    user_name(agent_id) AS agent,
    pick,
    least(eligible, $per_agent) AS drawn,
    eligible,
    satisfaction_score
FROM drawn
WHERE pick <= $per_agent
ORDER BY agent_id, pick
