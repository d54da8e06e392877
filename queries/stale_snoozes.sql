-- name: stale_snoozes
-- description: Snoozed tickets whose snooze is over or goes on for too long.
-- param overdue_by: interval = interval '1 hour' -- how long a snooze may be over before it counts as forgotten
-- param longest: interval = interval '30 days' -- snoozes that end later than this from now are put away, not put off
-- max_age: 2h

-- A snooze without an end is as stale as one that is over: nothing brings the ticket back.
SELECT
    ticket_id,
    CASE
        WHEN snooze_until IS NULL THEN 'no end'
        WHEN snooze_until < now() THEN 'over'
        ELSE 'too long'
    END AS reason,
    snooze_until,
    CASE WHEN snooze_until < now() THEN round(date_part('epoch', now() - snooze_until) / 3600, 1) END AS hours_over,
    snooze_count,
    queue_name(queue_id) AS queue,
    user_name(assigned_user_ids[1]) AS agent
FROM tickets
WHERE status = 'snoozed'
  AND (snooze_until IS NULL OR snooze_until < now() - $overdue_by OR snooze_until > now() + $longest)
  AND spam IS DISTINCT FROM true
ORDER BY snooze_until NULLS FIRST, ticket_id
