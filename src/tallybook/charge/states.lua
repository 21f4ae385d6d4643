-- Changes what the till knows of a customer or a tenant, beside charging: terms that are newer, and who is frozen.
--
-- KEYS[i]    the hash tag of a partition
-- ARGV[1]    the epoch this installation must have
-- ARGV[2]    what to do: "tenant" and "customer" raise the version of their terms, "freeze" and "thaw" a customer
-- ARGV[3]    the field of the partition's states (charge/states.py)
-- ARGV[4]    the version, or why the customer is frozen
-- Nothing is written when any partition is refused.

if redis.replicate_commands then redis.replicate_commands() end

local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'untold'
local epoch, verb, field, value = unpack(ARGV)
for _, prefix in ipairs(KEYS) do
    local meta = redis.call('HMGET', prefix .. ':m', 'epoch', 'run', 'closed')
    if meta[1] ~= epoch then return redis.error_reply('EPOCH partition ' .. prefix .. ' holds ' .. (meta[1] or 'no epoch')) end
    if meta[3] then return redis.error_reply('CLOSED ' .. meta[3]) end
    if meta[2] ~= run then return redis.error_reply('RESTARTED since the till was compared with the book') end
end

-- What is left in the first pool stands before a customer's text, and is no text itself. Who is frozen has a mark before the text, and
-- the reason, with another mark, behind it.
local TEXT_AT, NOTHING, MARK = 9, string.rep('\0', 8) .. '0;', '!'
local find, sub = string.find, string.sub
local change = {}

function change.tenant(known)
    return tonumber(value) > tonumber(known or '0') and string.format('%-65d', tonumber(value))
end

function change.customer(known)
    known = known or NOTHING
    local version_at = sub(known, TEXT_AT, TEXT_AT) == MARK and TEXT_AT + 1 or TEXT_AT
    local version_end = find(known, ';', version_at, true)
    if tonumber(value) <= tonumber(sub(known, version_at, version_end - 1)) then return nil end
    return sub(known, 1, version_at - 1) .. value .. sub(known, version_end)
end

function change.thaw(known)
    if not known or sub(known, TEXT_AT, TEXT_AT) ~= MARK then return nil end
    return sub(known, 1, TEXT_AT - 1) .. sub(known, TEXT_AT + 1, find(known, MARK, TEXT_AT + 1, true) - 1)
end

function change.freeze(known)
    known = change.thaw(known) or known or NOTHING
    return sub(known, 1, TEXT_AT - 1) .. MARK .. sub(known, TEXT_AT) .. MARK .. value
end

for _, prefix in ipairs(KEYS) do
    local states = prefix .. ':c'
    local changed = change[verb](redis.call('HGET', states, field))
    if changed then redis.call('HSET', states, field, changed) end
end
