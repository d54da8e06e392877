-- name: repeat_contacts
-- description: Newest ticket of each customer who keeps coming back, with the customer's conversation counts.
-- param since: timestamp = now() - interval '30 days' -- tickets created at or after this time
-- param min_conversations: int = 5 -- conversations of the customer in all
-- max_age: 1d

-- The counts are kept by the source over the customer's whole history, so that they are right even where the lake holds
-- only the last months. One row per customer: the newest ticket is where to start to read.
WITH newest AS (
    SELECT
        ticket_id,
        customer_id,
        status,
        custom_contact_reason,
        created_at,
        count(*) OVER (PARTITION BY customer_id) AS tickets_since,
        row_number() OVER (PARTITION BY customer_id ORDER BY created_at DESC, ticket_id DESC) AS place
    FROM tickets
    WHERE created_at >= $since
)
SELECT
    newest.ticket_id,
    newest.customer_id,
    customers.conversation_count_all,
    customers.conversation_count_open,
    newest.tickets_since,
    newest.custom_contact_reason AS contact_reason,
    newest.status,
    newest.created_at
FROM newest
JOIN customers ON customers.customer_id = newest.customer_id
WHERE newest.place = 1
  AND customers.conversation_count_all >= $min_conversations
ORDER BY customers.conversation_count_all DESC, newest.ticket_id
