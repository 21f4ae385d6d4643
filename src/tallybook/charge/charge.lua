-- The till: the only place where usage is deduplicated, checked, deducted and logged. One call is one atomic step.
--
-- KEYS[i]    the hash tag of a partition, "{p07}"
-- ARGV[1]    the epoch this installation must have
-- ARGV[2]    length of a dedupe generation in seconds (an identity is remembered for one to two generations)
-- ARGV[2+i]  MessagePack: the commands for KEYS[i], each
--            {kind, tenant, customer, tenant version, customer version, digest, fingerprint .. idempotency hash,
--             pool, opening, amount, blocks, spare pool, record, and for a void what goes back to the spare pool}
-- ARGV[2+#KEYS+i]  the highest log sequence of KEYS[i] that the caller has been told of
-- Returns MessagePack: for each partition {sequence or 0, accepted at in ms, {status, a, b, c}, …}.
--
-- Amounts are text from end to end. Lua numbers are doubles: they may only be asked for their sign (or compared to the bound
-- far above any sum in use), never added, concatenated or printed. Everything that can fail is checked before the first write.

if redis.replicate_commands then redis.replicate_commands() end

local USAGE, ADJUSTMENT, SET, EXPIRY, TICK, VOID = 0, 1, 2, 3, 4, 5
local ACCEPTED, DUPLICATE, CONFLICT, REFUSED, STALE, LIMIT, FROZEN = 0, 1, 2, 3, 4, 5, 6
local POOL_BOUND = 4e18

local call, pack = redis.call, cmsgpack.pack

local function negated(amount)
    if amount == '0' then return amount end
    if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
    return '-' .. amount
end

local function is_negative(amount) return string.sub(amount, 1, 1) == '-' end

local function is_positive(amount) return amount ~= '0' and not is_negative(amount) end

-- MessagePack header of an array, in the form that holds any length.
local function array_of(length) return '\221' .. struct.pack('>I4', length) end

local function array(items)
    return array_of(#items) .. table.concat(items)
end

local NIBBLES = '0123456789abcdef'

-- Where an identity is kept in each generation: a bucket (its first 12 bits, as a byte and a hex digit) and a field in it.
local function place_of(digest)
    local nibble = math.floor(string.byte(digest, 2) / 16) + 1
    return string.sub(digest, 1, 1) .. string.sub(NIBBLES, nibble, nibble), string.sub(digest, 2, 14)
end

local function remembered(partition, bucket, field)
    return call('HGET', partition.remembered_now .. bucket, field) or call('HGET', partition.remembered_before .. bucket, field)
end

local function remember(partition, bucket, field, head, amount, left, spare_left, outcome)
    call('HSET', partition.remembered_now .. bucket, field,
        head .. partition.packed_now .. amount .. ',' .. left .. ',' .. spare_left .. ',' .. outcome)
end

-- The terms an event was priced with must not be older than what the till has been told. Newer ones are learned.
local function terms_are_stale(partition, customer_key, tenant, tenant_version, customer_version, known_customer_version)
    local known = partition.tenant_versions[tenant]
    if not known then
        known = tonumber(call('HGET', partition.prefix .. ':t', tenant) or '0')
        partition.tenant_versions[tenant] = known
    end
    if tenant_version < known or customer_version < known_customer_version then return true end
    if tenant_version > known then
        call('HSET', partition.prefix .. ':t', tenant, string.format('%.0f', tenant_version))
        partition.tenant_versions[tenant] = tenant_version
    end
    if customer_version > known_customer_version then
        call('HSET', customer_key, 'v', string.format('%.0f', customer_version))
    end
    return false
end

-- Opens a pool on first use, or moves it by the difference when its terms grant another amount than before.
local function open_pool(partition, customer_key, tenant, customer, pool, left, opened, opening)
    if opened == opening then return left end
    if opened then
        call('HINCRBY', customer_key, pool, opening)
        call('HINCRBY', customer_key, pool, negated(opened))
        call('HSET', customer_key, pool .. '.o', opening)
    else
        call('HSET', customer_key, pool, opening, pool .. '.o', opening)
    end
    partition.openings[#partition.openings + 1] = pack({tenant, customer, pool, opened or '', opening})
    return call('HGET', customer_key, pool)
end

-- Takes the shortage of a pool from the spare pool. Returns the part that the spare pool paid, or nil when it cannot.
local function pay_from_spare(customer_key, pool, left, amount, spare)
    local shortage
    if is_positive(left) then
        shortage = call('HGET', customer_key, pool)
    else
        shortage = amount
    end
    if call('HINCRBY', customer_key, spare, shortage) < 0 then
        call('HINCRBY', customer_key, spare, negated(shortage))
        return nil
    end
    if is_positive(left) then call('HSET', customer_key, pool, '0') else call('HSET', customer_key, pool, left) end
    return negated(shortage)
end

-- Each kind changes one pool and returns a status and the outcome to log. `amount` is signed: what is added to the pool.
local apply = {}

apply[USAGE] = function(customer_key, pool, left, amount, blocks, spare)
    local after = call('HINCRBY', customer_key, pool, amount)
    if after < -POOL_BOUND then
        call('HINCRBY', customer_key, pool, negated(amount))
        return LIMIT, ''
    end
    if after >= 0 or not blocks or amount == '0' then return ACCEPTED, '' end
    if spare ~= '' then
        local paid = pay_from_spare(customer_key, pool, left, amount, spare)
        if paid then return ACCEPTED, paid end
    end
    call('HSET', customer_key, pool, left)
    return REFUSED, ''
end

-- What is taken away by hand comes from the spare pool first, and only the rest from the pool; neither is left below zero by it.
-- Returns the part of the spare pool, negative.
local function take_away(customer_key, pool, left, amount, spare)
    local spare_left, rest = call('HGET', customer_key, spare) or '0', amount
    local has_spare = is_positive(spare_left)
    if has_spare then
        if call('HINCRBY', customer_key, spare, amount) >= 0 then return ACCEPTED, amount end
        rest = call('HGET', customer_key, spare)
        call('HSET', customer_key, spare, '0')
    end
    if call('HINCRBY', customer_key, pool, rest) >= 0 then return ACCEPTED, has_spare and negated(spare_left) or '' end
    call('HSET', customer_key, pool, left)
    if has_spare then call('HSET', customer_key, spare, spare_left) end
    return REFUSED, ''
end

apply[ADJUSTMENT] = function(customer_key, pool, left, amount, blocks, spare)
    if spare ~= '' then return take_away(customer_key, pool, left, amount, spare) end
    local after = call('HINCRBY', customer_key, pool, amount)
    local status = ACCEPTED
    if after > POOL_BOUND or after < -POOL_BOUND then
        status = LIMIT
    elseif after < 0 and blocks and is_negative(amount) then
        status = REFUSED
    end
    if status ~= ACCEPTED then call('HSET', customer_key, pool, left) end
    return status, ''
end

apply[SET] = function(customer_key, pool, left, amount, blocks)
    if blocks and is_negative(amount) then return REFUSED, '' end
    call('HSET', customer_key, pool, amount)
    return ACCEPTED, left
end

-- Both parts go back to where they came from, or neither does.
apply[VOID] = function(customer_key, pool, left, amount, blocks, spare, for_spare)
    local after, spare_after = call('HINCRBY', customer_key, pool, amount), 0
    if spare ~= '' then spare_after = call('HINCRBY', customer_key, spare, for_spare) end
    if after <= POOL_BOUND and spare_after <= POOL_BOUND then return ACCEPTED, negated(for_spare) end
    call('HSET', customer_key, pool, left)
    if spare ~= '' then call('HINCRBY', customer_key, spare, negated(for_spare)) end
    return LIMIT, ''
end

apply[EXPIRY] = function(customer_key, pool, left)
    call('HDEL', customer_key, pool, pool .. '.o')
    return ACCEPTED, left
end

-- An array of two; of four for what is remembered, so that the till can be made again from the book.
local function log(partition, record, outcome)
    partition.records[#partition.records + 1] = '\146' .. record .. pack(outcome)
end

local function log_remembered(partition, record, outcome, left, spare_left)
    partition.records[#partition.records + 1] = '\148' .. record .. pack(outcome, left, spare_left)
end

local function handle(partition, command)
    local kind, tenant, customer, tenant_version, customer_version, digest, head, pool, opening, amount, blocks, spare, record,
        for_spare = unpack(command)
    if kind == TICK then
        log(partition, record, '')
        return {ACCEPTED}
    end
    local customer_key = partition.prefix .. ':c:' .. customer
    local state = call('HMGET', customer_key, 'v', 'z', pool, pool .. '.o')
    local left, opened = state[3], state[4]
    local bucket, field
    if kind == EXPIRY then
        if not opened then return {ACCEPTED} end
    else
        if terms_are_stale(partition, customer_key, tenant, tenant_version, customer_version, tonumber(state[1] or '0')) then
            return {STALE}
        end
        bucket, field = place_of(digest)
        local seen = remembered(partition, bucket, field)
        if seen then
            local status = string.sub(seen, 1, 8) == string.sub(head, 1, 8) and DUPLICATE or CONFLICT
            return {status, seen}
        end
        if state[2] then return {FROZEN, state[2]} end
        left = open_pool(partition, customer_key, tenant, customer, pool, left or '0', opened or nil, opening)
    end
    local status, outcome = apply[kind](customer_key, pool, left, amount, blocks == 1, spare, for_spare)
    local left_now = call('HGET', customer_key, pool) or '0'
    local spare_left = spare ~= '' and call('HGET', customer_key, spare) or '0'
    if status == ACCEPTED then
        if kind == EXPIRY then
            log(partition, record, outcome)
        else
            remember(partition, bucket, field, head, amount, left_now, spare_left, outcome)
            log_remembered(partition, record, outcome, left_now, spare_left)
        end
    end
    return {status, left_now, spare_left, outcome}
end

local function append(partition)
    if #partition.records == 0 and #partition.openings == 0 then return 0 end
    local sequence = call('HINCRBY', partition.prefix .. ':m', 'seq', 1)
    local id = string.format('%.0f-0', sequence)
    local entry = '\148\1' .. pack(partition.now_ms) .. array(partition.records) .. array(partition.openings)
    call('XADD', partition.prefix .. ':log', id, 'd', entry)
    return sequence
end

local epoch, generation_s = ARGV[1], tonumber(ARGV[2])
local clock = call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- The run of the server that this is; it changes with every start. A server that does not tell counts as never restarted.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'untold'

local partitions = {}
for i, prefix in ipairs(KEYS) do
    local meta = call('HMGET', prefix .. ':m', 'epoch', 'generation', 'now_ms', 'run', 'seq', 'closed')
    if meta[1] ~= epoch then
        return redis.error_reply('EPOCH partition ' .. prefix .. ' holds ' .. (meta[1] or 'no epoch') .. ', expected ' .. epoch)
    end
    if meta[6] then return redis.error_reply('CLOSED ' .. meta[6]) end
    if meta[4] ~= run then return redis.error_reply('RESTARTED since the till was compared with the book') end
    local told = ARGV[2 + #KEYS + i] or '0'
    if tonumber(meta[5] or '0') < tonumber(told) then
        return redis.error_reply('BEHIND partition ' .. prefix .. ' is at ' .. (meta[5] or '0') .. ' and has acknowledged ' .. told)
    end
    -- Neither time nor generation goes back, whatever the machine's clock does.
    local now = math.max(now_ms, tonumber(meta[3] or '0'))
    local generation = math.max(math.floor(now / 1000 / generation_s), tonumber(meta[2] or '0'))
    partitions[i] = {
        prefix = prefix, generation = generation, now_ms = now, packed_now = struct.pack('>I6', now),
        remembered_now = prefix .. ':d:' .. generation .. ':', remembered_before = prefix .. ':d:' .. (generation - 1) .. ':',
        commands = cmsgpack.unpack(ARGV[2 + i]),
        tenant_versions = {}, records = {}, openings = {},
    }
end

local reply = {}
for i, partition in ipairs(partitions) do
    local results = {0, partition.now_ms}
    for j, command in ipairs(partition.commands) do results[j + 2] = handle(partition, command) end
    results[1] = append(partition)
    if results[1] ~= 0 then
        call('HSET', partition.prefix .. ':m', 'generation', partition.generation, 'now_ms', string.format('%.0f', partition.now_ms))
    end
    reply[i] = results
end
return pack(reply)
