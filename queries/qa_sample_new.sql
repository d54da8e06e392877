-- name: qa_sample_new
-- description: The QA sample per agent without tickets that earlier samples hold, so that nothing is reviewed twice.
-- param lists: text[] = ['qa_sample_new', 'qa_sample_per_agent'] -- recorded lists whose tickets are left out
-- param seed: text = 'qa' -- another seed draws another sample; write it down with the review
-- param per_agent: int = 5 -- tickets per agent
-- param since: timestamp = now() - interval '7 days' -- tickets done at or after this time
-- param until: timestamp = now() -- tickets done before this time
-- param min_messages: int = 2 -- shorter tickets have nothing to review
-- max_age: 1d

-- Run with --record, each sample is left out of the next one. Where the time is short and the agents are few, that uses
-- up what there is to draw: `shortfall` says so.
WITH eligible AS (
    SELECT ticket_id, assigned_user_ids[1] AS agent_id
    FROM tickets
    WHERE status = 'done'
      AND last_done_at >= $since
      AND last_done_at < $until
      AND message_count >= $min_messages
      AND assigned_user_ids[1] IS NOT NULL
      AND ticket_id NOT IN (SELECT ticket_id FROM ticket_lists WHERE array_has($lists, list))
      AND spam IS DISTINCT FROM true
),
counts AS (
    SELECT agent_id, count(*) AS eligible FROM eligible GROUP BY agent_id
),
draws AS (
    SELECT
        ticket_id,
        agent_id,
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
    counts.eligible,
    greatest($per_agent - counts.eligible, 0) AS shortfall
FROM picks
JOIN counts ON counts.agent_id = picks.agent_id
ORDER BY picks.agent_id, picks.pick
