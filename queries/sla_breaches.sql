-- name: sla_breaches
-- description: Tickets whose SLA was breached, newest breach first, by metric.
-- param since: timestamp = now() - interval '7 days' -- breaches at or after this time
-- param until: timestamp = now() -- breaches before this time
-- param metrics: text[] = [] -- only these metrics, as in firstResponse; an empty list for all
-- max_age: 2h

-- The source decides what a breach is; this only finds them. A ticket breached on several metrics shows the one that
-- the source holds as its breach.
SELECT
    ticket_id,
    sla_name,
    sla_breached_metric AS metric,
    sla_breached_at AS breached_at,
    status,
    queue_name(queue_id) AS queue,
    user_name(assigned_user_ids[1]) AS agent
FROM tickets
WHERE sla_breached
  AND sla_breached_at >= $since
  AND sla_breached_at < $until
  AND (array_length($metrics) = 0 OR array_has($metrics, sla_breached_metric))
  AND spam IS DISTINCT FROM true
ORDER BY sla_breached_at DESC, ticket_id
