-- name: first_response_misses
-- description: Tickets whose first response came after the SLA's time, or is still due after it.
-- param since: timestamp = now() - interval '7 days' -- tickets created at or after this time
-- param until: timestamp = now() -- tickets created before this time; what is due by then counts as missed
-- max_age: 2h

-- The breach time that the SLA computed is the yardstick: it knows business hours, which a subtraction of two times
-- would not. A ticket without a first response is a miss from its breach time on, not only once someone answers.
SELECT
    ticket_id,
    sla_name,
    queue_name(queue_id) AS queue,
    created_at,
    sla_first_response_breach_at AS due_at,
    first_response_at,
    round(date_part('epoch', coalesce(first_response_at, $until) - sla_first_response_breach_at) / 60) AS minutes_late
FROM tickets
WHERE created_at >= $since
  AND created_at < $until
  AND sla_first_response_breach_at IS NOT NULL
  AND coalesce(first_response_at, $until) > sla_first_response_breach_at
  AND spam IS DISTINCT FROM true
ORDER BY minutes_late DESC, ticket_id
