-- name: agent_weekly
-- description: Done tickets per agent and week, with handling time, reopenings and satisfaction.
-- param since: timestamp = date_trunc('week', now()) - interval '28 days' -- first week
-- param until: timestamp = date_trunc('week', now()) -- end of the last week
-- param min_tickets: int = 1 -- agents with fewer in a week tell nothing about it
-- complete_through: $until -- a week that is not whole looks like a bad one

-- A ticket belongs to the week and to the agent of its last closing. The median resists the one ticket that was
-- forgotten for a month; a rate over no answer is empty and not zero.
WITH done AS (
    SELECT
        date_trunc('week', last_done_at) AS monday,
        coalesce(last_done_user_id, assigned_user_ids[1]) AS agent_id,
        total_open_ms,
        reopen_count,
        satisfaction_score
    FROM tickets
    WHERE status = 'done'
      AND last_done_at >= $since
      AND last_done_at < $until
      AND spam IS DISTINCT FROM true
)
SELECT
    CAST(monday AS date) AS week,
    coalesce(user_name(agent_id), agent_id) AS agent,
    count(*) AS tickets,
    round(median(total_open_ms) / 3600000.0, 1) AS median_hours_open,
    round(avg(CASE WHEN reopen_count > 0 THEN 1.0 ELSE 0.0 END), 3) AS reopened_share,
    count(satisfaction_score) AS scores,
    round(avg(satisfaction_score), 3) AS satisfied_share
FROM done
WHERE agent_id IS NOT NULL
GROUP BY monday, agent_id
HAVING count(*) >= $min_tickets
ORDER BY monday, agent
