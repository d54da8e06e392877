-- name: qa_sample_shortfall
-- description: Agents with fewer done tickets than the QA sample asks for, those without any included.
-- param per_agent: int = 5 -- tickets per agent that the sample asks for
-- param since: timestamp = now() - interval '7 days' -- as given to qa_sample_per_agent
-- param until: timestamp = now() -- as given to qa_sample_per_agent
-- param min_messages: int = 2 -- as given to qa_sample_per_agent
-- max_age: 1d

-- An agent is whom a ticket that changed in the time is assigned to: whoever worked then is expected to be in the
-- sample. A row with no eligible ticket cannot be in the sample's own list, which is why this report is a file beside it.
WITH agents AS (
    SELECT
        assigned_user_ids[1] AS agent_id,
        count(*) AS assigned,
        count(*) FILTER (
            WHERE status = 'done'
              AND last_done_at >= $since
              AND last_done_at < $until
              AND message_count >= $min_messages
              AND spam IS DISTINCT FROM true
        ) AS eligible
    FROM tickets
    WHERE updated_at >= $since
      AND assigned_user_ids[1] IS NOT NULL
    GROUP BY assigned_user_ids[1]
)
SELECT
    coalesce(user_name(agent_id), agent_id) AS agent,
    assigned,
    eligible,
    $per_agent - eligible AS shortfall
FROM agents
WHERE eligible < $per_agent
ORDER BY shortfall DESC, agent
