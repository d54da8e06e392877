-- name: backlog_age
-- description: Tickets not done, per queue and age, with the oldest of each.
-- param statuses: text[] = ['open', 'snoozed'] -- statuses that count as not done
-- param edges: interval[] = [interval '1 day', interval '3 days', interval '7 days'] -- ends of the first three ages
-- max_age: 2h

-- An age begins with the ticket, not with its last reopening: what comes back was not solved before.
WITH aged AS (
    SELECT
        queue_id,
        ticket_id,
        created_at,
        CASE
            WHEN created_at > now() - $edges[1] THEN 1
            WHEN created_at > now() - $edges[2] THEN 2
            WHEN created_at > now() - $edges[3] THEN 3
            ELSE 4
        END AS age
    FROM tickets
    WHERE array_has($statuses, status)
      AND spam IS DISTINCT FROM true
)
SELECT
    coalesce(queue_name(queue_id), queue_id, 'no queue') AS queue,
    age,
    count(*) AS tickets,
    min(created_at) AS oldest_created_at,
    first_value(ticket_id ORDER BY created_at, ticket_id) AS oldest_ticket_id
FROM aged
GROUP BY queue_id, age
ORDER BY queue, age DESC
