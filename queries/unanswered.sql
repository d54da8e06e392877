-- name: unanswered
-- description: Open tickets whose customer wrote last and waits for an answer.
-- param waiting: interval = interval '4 hours' -- who waits for less may still be answered in time
-- param queues: text[] = [] -- only these queues, by name; an empty list for all
-- max_age: 30m

-- The wait counts from the first message that nobody answered, not from the last: who writes again is not newly waiting.
SELECT
    ticket_id,
    round(date_part('epoch', now() - coalesce(unresponded_message_at, last_message_in_at)) / 3600, 1) AS hours_waiting,
    queue_name(queue_id) AS queue,
    user_name(assigned_user_ids[1]) AS agent,
    priority,
    channels,
    last_message_in_at
FROM tickets
WHERE status = 'open'
  AND last_message_direction = 'in'
  AND coalesce(unresponded_message_at, last_message_in_at) < now() - $waiting
  AND (array_length($queues) = 0 OR array_has($queues, queue_name(queue_id)))
  AND spam IS DISTINCT FROM true
ORDER BY hours_waiting DESC, ticket_id
