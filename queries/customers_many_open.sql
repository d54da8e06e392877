-- name: customers_many_open
-- description: Customers with several tickets not done, with the oldest of them as the place to start.
-- param min_open: int = 2 -- tickets not done that make a customer worth a call
-- max_age: 1d

-- Counted from the tickets, so that the list and the numbers come from one instant; the source's own count stands beside
-- it and differs where a ticket is older than the lake. Who has several tickets open often waits for one answer to all.
WITH waiting AS (
    SELECT
        customer_id,
        count(*) AS not_done,
        count(*) FILTER (WHERE status = 'open') AS open,
        min(created_at) AS oldest_created_at,
        first_value(ticket_id ORDER BY created_at, ticket_id) AS oldest_ticket_id
    FROM tickets
    WHERE status <> 'done'
      AND customer_id IS NOT NULL
      AND spam IS DISTINCT FROM true
    GROUP BY customer_id
)
SELECT
    waiting.oldest_ticket_id AS ticket_id,
    waiting.customer_id,
    waiting.not_done,
    waiting.open,
    customers.conversation_count_open AS open_in_source,
    customers.conversation_count_all AS conversations,
    waiting.oldest_created_at
FROM waiting
LEFT JOIN customers ON customers.customer_id = waiting.customer_id
WHERE waiting.not_done >= $min_open
ORDER BY waiting.not_done DESC, waiting.oldest_created_at, ticket_id
