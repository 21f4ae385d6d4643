-- What the till holds of some customers, as one atomic step. Writes nothing.
--
-- KEYS[i]      the hash tag of a customer's partition, "{p07}"
-- ARGV[2i - 1] the tenant's field of the partition's states, ARGV[2i] the customer's (charge/states.py)
-- Returns for each of them {epoch, last log sequence, why the partition is closed, the tenant's version, the customer's state}.

local found = {}
for i, tag in ipairs(KEYS) do
    local meta = redis.call('HMGET', tag .. ':m', 'epoch', 'seq', 'closed')
    local states = redis.call('HMGET', tag .. ':c', ARGV[2 * i - 1], ARGV[2 * i])
    found[i] = {meta[1], meta[2], meta[3], states[1], states[2]}
end
return found
