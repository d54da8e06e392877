-- name: weekly_volume_by_channel
-- description: Tickets created per week and channel, with their share of the week.
-- param since: timestamp = date_trunc('week', now()) - interval '84 days' -- first week
-- param until: timestamp = date_trunc('week', now()) -- end of the last week; a started week would look like a drop
-- complete_through: $until

-- A ticket that went over two channels counts in both, so that the shares of a week may add up to more than one.
WITH weeks AS (
    SELECT date_trunc('week', created_at) AS monday, ticket_id, unnest(channels) AS channel
    FROM tickets
    WHERE created_at >= $since
      AND created_at < $until
      AND spam IS DISTINCT FROM true
),
totals AS (
    SELECT monday, count(DISTINCT ticket_id) AS tickets_in_week
    FROM weeks
    GROUP BY monday
)
SELECT
    CAST(weeks.monday AS date) AS week,
    weeks.channel,
    count(DISTINCT weeks.ticket_id) AS tickets,
    round(CAST(count(DISTINCT weeks.ticket_id) AS double) / totals.tickets_in_week, 3) AS share
FROM weeks
JOIN totals ON totals.monday = weeks.monday
GROUP BY weeks.monday, weeks.channel, totals.tickets_in_week
ORDER BY weeks.monday, tickets DESC, weeks.channel
