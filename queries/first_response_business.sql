-- name: first_response_business
-- description: Tickets whose first response took longer than a time of business hours, those still waiting included.
-- param since: timestamp = now() - interval '7 days' -- tickets created at or after this time
-- param longest: interval = interval '4 hours' -- business time that a first response may take
-- param schedule: text = 'default' -- id or name of a business schedule; `default` is the source's own
-- max_age: 2h

-- The source's own figure, `first_response_business_ms`, is there once someone answered, and counts by the schedule of
-- that day. This one counts what nobody has answered yet, and by whichever schedule one asks for.
WITH waits AS (
    SELECT
        ticket_id,
        created_at,
        first_response_at,
        queue_id,
        channels,
        business_seconds(created_at, coalesce(first_response_at, now()), $schedule) AS waited_seconds
    FROM tickets
    WHERE created_at >= $since
      AND coalesce(direction, 'in') <> 'out'
      AND (first_response_at IS NOT NULL OR status <> 'done')
      AND spam IS DISTINCT FROM true
)
SELECT
    ticket_id,
    round(waited_seconds / 3600.0, 1) AS business_hours,
    first_response_at IS NULL AS still_waiting,
    queue_name(queue_id) AS queue,
    channels,
    created_at,
    first_response_at
FROM waits
WHERE waited_seconds > date_part('epoch', $longest)
ORDER BY waited_seconds DESC, ticket_id
