-- name: many_agents
-- description: Tickets that went through the hands of many agents.
-- param min_agents: int = 3 -- agents that make a ticket worth a look
-- param since: timestamp = now() - interval '30 days' -- tickets changed at or after this time
-- max_age: 1d

-- A ticket's newest revision names whoever is assigned and who first and last answered and closed it. Agents in between
-- are only in `ticket_versions`, and only if the lake saw them, so this is a lower bound that every lake can give.
WITH hands AS (
    SELECT
        ticket_id,
        status,
        reopen_count,
        message_count,
        updated_at,
        array_remove(
            array_distinct(array_concat(
                coalesce(assigned_user_ids, []),
                [
                    coalesce(first_response_user_id, ''),
                    coalesce(last_response_user_id, ''),
                    coalesce(first_done_user_id, ''),
                    coalesce(last_done_user_id, '')
                ]
            )),
            ''
        ) AS agent_ids
    FROM tickets
    WHERE updated_at >= $since
      AND spam IS DISTINCT FROM true
)
SELECT
    ticket_id,
    array_length(agent_ids) AS agents,
    agent_ids,
    reopen_count,
    message_count,
    status,
    updated_at
FROM hands
WHERE array_length(agent_ids) >= $min_agents
ORDER BY agents DESC, ticket_id
