-- name: unassigned_backlog
-- description: Open tickets that nobody is assigned to, oldest first, with their age.
-- param older_than: interval = interval '4 hours' -- younger tickets may still be routed
-- param status: text[] = ['open', 'snoozed'] -- statuses that count as backlog
-- max_age: 30m

-- An empty list and NULL both mean unassigned: the source sends either.
SELECT
    ticket_id,
    CASE
        WHEN created_at < now() - interval '7 days' THEN 'over 7 days'
        WHEN created_at < now() - interval '1 day' THEN '1 to 7 days'
        ELSE 'under 1 day'
    END AS age,
    round(date_part('epoch', now() - created_at) / 3600, 1) AS age_hours,
    queue_name(queue_id) AS queue,
    priority,
    channels,
    created_at
FROM tickets
WHERE array_has($status, status)
  AND coalesce(array_length(assigned_user_ids), 0) = 0
  AND created_at < now() - $older_than
  AND spam IS DISTINCT FROM true
ORDER BY created_at, ticket_id
