-- name: refunds
-- description: Tickets with a refund of at least an amount, by the custom attributes `refund_amount` and `contact_reason`.
-- param min_amount: double = 100 -- smallest refund that counts, in the currency of the attribute
-- param since: timestamp = now() - interval '30 days' -- tickets changed at or after this time
-- param reasons: text[] = [] -- contact reasons, and all below them; an empty list for all
-- max_age: 1d

-- A custom attribute is a column named after it, `custom_` before it. A contact reason is a path with dots, as in
-- orders.late.refund, so that a reason given here finds what is filed below it too.
SELECT
    ticket_id,
    custom_refund_amount AS refund,
    custom_contact_reason AS contact_reason,
    round(100 * percent_rank() OVER (ORDER BY custom_refund_amount), 1) AS larger_than_percent,
    user_name(assigned_user_ids[1]) AS agent,
    status,
    updated_at
FROM tickets
WHERE custom_refund_amount >= $min_amount
  AND updated_at >= $since
  AND (
    array_length($reasons) = 0
    OR array_has($reasons, custom_contact_reason)
    OR array_has($reasons, split_part(custom_contact_reason, '.', 1))
    OR array_has($reasons, split_part(custom_contact_reason, '.', 1) || '.' || split_part(custom_contact_reason, '.', 2))
  )
ORDER BY custom_refund_amount DESC, ticket_id
