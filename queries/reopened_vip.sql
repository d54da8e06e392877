-- name: reopened_vip
-- description: VIP tickets reopened at least a number of times since a day.
-- param since: timestamp = now() - interval '7 days' -- tickets changed at or after this time
-- param min_reopens: int = 2 -- reopenings that make a ticket worth a look
-- param tier: text = 'vip' -- value of the custom attribute `tier`
-- max_age: 2h

-- A ticket that comes back is a promise that was not kept; for a VIP it is read first. The list is ordered so that the
-- same lake always gives the same order.
SELECT
    ticket_id,
    reopen_count,
    status,
    satisfaction_score,
    user_name(assigned_user_ids[1]) AS agent,
    updated_at
FROM tickets
WHERE custom_tier = $tier
  AND reopen_count >= $min_reopens
  AND updated_at >= $since
ORDER BY reopen_count DESC, ticket_id
