-- What keeps everybody but this installation's own, whole till from being charged. One thing is done to all partitions of a call at once.
--
-- KEYS[i]    the hash tag of a partition
-- ARGV[1]    what to do: "begin" gives what is empty the epoch; "probe" says whether it could; "admit" notes that the till was compared with the book in this run of
--            the server; "look" only compares; "ask" compares and says whether the server was started again since it was noted;
--            "close" refuses everything until the till is made anew
-- ARGV[2]    the epoch; for "close", ARGV[3] is the reason
-- ARGV[2+i]  the lowest sequence that KEYS[i] may be at: what the book has read, what the caller was told
-- Whoever asks or admits is also refused a partition whose log has an entry that `seq` does not count: the next could not be appended.
-- Returns "restarted" or "same". Nothing is written when any partition is refused.

if redis.replicate_commands then redis.replicate_commands() end

local call = redis.call
local verb, epoch = ARGV[1], ARGV[2]
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'untold'

-- The last sequence that the log of a partition was given.
local function last_logged(prefix)
    local told = redis.pcall('XINFO', 'STREAM', prefix .. ':log')
    for i = 1, #told, 2 do
        if told[i] == 'last-generated-id' then return tonumber(string.match(told[i + 1], '^%d+')) end
    end
    return 0
end

local new, behind, answer = {}, {}, 'same'
for i, prefix in ipairs(KEYS) do
    local meta = call('HMGET', prefix .. ':m', 'epoch', 'seq', 'run', 'closed')
    local is_new = (verb == 'begin' or verb == 'probe') and not meta[1] and not meta[2]
    if is_new and verb == 'begin' then new[prefix] = true end
    if not is_new and meta[1] ~= epoch then
        return redis.error_reply('EPOCH partition ' .. prefix .. ' holds ' .. (meta[1] or 'no epoch') .. ', expected ' .. epoch)
    end
    if verb ~= 'close' then
        if meta[4] then return redis.error_reply('CLOSED ' .. meta[4]) end
        if meta[3] ~= run then answer = 'restarted' end
        if verb == 'look' and meta[3] ~= run then return redis.error_reply('RESTARTED since the till was compared with the book') end
        if tonumber(meta[2] or '0') < tonumber(ARGV[2 + i] or '0') then
            behind[#behind + 1] = prefix .. ' at ' .. (meta[2] or '0') .. ' of ' .. ARGV[2 + i]
        elseif verb == 'ask' or verb == 'admit' then
            local logged = last_logged(prefix)
            if logged > tonumber(meta[2] or '0') then
                behind[#behind + 1] = prefix .. ' at ' .. (meta[2] or '0') .. ', its log is at ' .. string.format('%d', logged)
            end
        end
    end
end
if #behind > 0 then return redis.error_reply('BEHIND ' .. table.concat(behind, ', ')) end

for _, prefix in ipairs(KEYS) do
    if new[prefix] then call('HSET', prefix .. ':m', 'epoch', epoch, 'run', run) end
    if verb == 'admit' then call('HSET', prefix .. ':m', 'run', run) end
    if verb == 'close' then call('HSET', prefix .. ':m', 'closed', ARGV[3]) end
end
return answer
