-- The till: the only place where usage is deduplicated, checked, deducted and logged. One call is one atomic step.
--
-- KEYS[i]    the hash tag of a partition, "{p07}"
-- ARGV[1]    the epoch this installation must have
-- ARGV[2]    length of a dedupe generation in seconds (an identity is remembered for one to two generations)
-- ARGV[3i]   the charges of KEYS[i]: the form of their log entry, how many, an amount each (8 bytes), where they go as rows what tells
--            them apart, then runs of them that have all else in common, as `HEAD` says; those with an amount beyond EXACT_AMOUNT end
--            with the amounts in text
-- ARGV[3i+1] their records in the same order (core/packed_log.py), which are copied into the log; columns say what tells records apart
-- ARGV[3i+2] the highest log sequence of KEYS[i] that the caller has been told of
-- Returns MessagePack: for each partition {sequence or 0, now in ms, what is left after each accepted charge (8 bytes each), of these
-- the ones that met something worth telling {number, outcome, spare left, left in text}, the others {place, status, ...}}.
--
-- Amounts are text, or numbers for as long as doubles are exact (`EXACT` is asked after each sum). What is beyond that, and all that is
-- rare, goes the long way: Redis does the sums on text, and Lua asks for a sign. Whatever can fail is checked before the first write.

if redis.replicate_commands then redis.replicate_commands() end

local USAGE, ADJUSTMENT, SET, EXPIRY, TICK, VOID = 0, 1, 2, 3, 4, 5
local ACCEPTED, DUPLICATE, CONFLICT, REFUSED, STALE, LIMIT, FROZEN = 0, 1, 2, 3, 4, 5, 6
local POOL_BOUND = 4e18
local EXACT, EXACT_AMOUNT = 2 ^ 53 - 1, 2 ^ 47 - 1
-- How many charges, kind, blocks, tenant version, then in text: customer version, customer, tenant, pool, opening, spare pool, what goes
-- back to the spare pool; and whether amounts in text follow.
local HEAD = '>I2BBI6Bc0Bc0Bc0Bc0Bc0Bc0Bc0B'
local AMOUNT, TEXT = '>i8', 'Bc0'
-- What is remembered of an identity after its payload: when, what was left, the amount (charge/identities.py).
local MEMORY = '>I6i7i6'
local IN_TEXT = 2 ^ 47
local COLUMNS = 2
local FORM_AND_COUNT, AMOUNTS_AT = '>BI4', 6

local call, pack, byte, char, sub, format = redis.call, cmsgpack.pack, string.byte, string.char, string.sub, string.format
local to_bytes, from_bytes = struct.pack, struct.unpack

local function negated(amount)
    if amount == '0' then return amount end
    if sub(amount, 1, 1) == '-' then return sub(amount, 2) end
    return '-' .. amount
end

local function is_negative(amount) return sub(amount, 1, 1) == '-' end

local function is_positive(amount) return amount ~= '0' and not is_negative(amount) end

-- The number a text says, or nil when a double may say another.
local function exact(text)
    local number = tonumber(text)
    if number <= EXACT and number >= -EXACT then return number end
end

-- MessagePack header of an array, in the form that holds any length.
local function array_of(length) return '\221' .. to_bytes('>I4', length) end

local function array(items)
    return array_of(#items) .. table.concat(items)
end

local NIBBLES = '0123456789abcdef'

-- Where an identity is kept in each generation: a bucket (its first 12 bits, as a byte and a hex digit) and a field in it.
local function place_of(digests, at)
    local low = byte(digests, at + 1)
    local nibble = (low - low % 16) / 16 + 1
    return sub(digests, at, at) .. sub(NIBBLES, nibble, nibble), sub(digests, at + 1, at + 9)
end

-- Opens a pool on first use, or moves it by the difference when its terms grant another amount than before.
local function open_pool(openings, customer_key, tenant, customer, pool, left, opened, opening)
    if opened == opening then return left end
    if opened then
        call('HINCRBY', customer_key, pool, negated(opened))
        call('HINCRBY', customer_key, pool, opening)
        call('HSET', customer_key, pool .. '.o', opening)
    else
        call('HSET', customer_key, pool, opening, pool .. '.o', opening)
    end
    openings[#openings + 1] = pack({tenant, customer, pool, opened or '', opening})
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

-- The partition that is being charged: names of its keys, what was asked, and what is answered and logged.
local prefix, now_ms, remembered_now, remembered_before, tenant_versions
local runs, records, form, identities, digests_at, payloads_at, requests_at, place
local lefts, count_accepted, beside, left_out, openings, others

-- The terms a run was priced with must not be older than what the till has been told. Newer ones are learned.
local function terms_are_stale(customer_key, tenant, tenant_version, customer_version, known_customer_version)
    local known = tenant_versions[tenant]
    if not known then
        known = tonumber(call('HGET', prefix .. ':t', tenant) or '0')
        tenant_versions[tenant] = known
    end
    local version, known_version = 0, 0
    if (known_customer_version or '0') ~= customer_version then
        version, known_version = tonumber(customer_version), tonumber(known_customer_version or '0')
    end
    if tenant_version < known or version < known_version then return true end
    if tenant_version > known then
        call('HSET', prefix .. ':t', tenant, format('%d', tenant_version))
        tenant_versions[tenant] = tenant_version
    end
    if version > known_version then call('HSET', customer_key, 'v', customer_version) end
    return false
end

-- What is remembered of an identity that the long way took: in numbers where these can say it.
local function memory_of(payload, request, amount, left, spare_left, outcome)
    local number, left_number = exact(amount), exact(left)
    local plain = spare_left == '0' and (outcome == '' or outcome == '0')
    if plain and number and left_number and number <= EXACT_AMOUNT and number >= -EXACT_AMOUNT then
        return payload .. to_bytes(MEMORY, now_ms, left_number, number) .. request
    end
    if request == '' then request = '\0\0\0\0' end
    local text = amount .. ',' .. left .. ',' .. spare_left .. ',' .. (outcome == '' and '0' or outcome)
    return payload .. to_bytes('>I6', now_ms + IN_TEXT) .. request .. text
end

-- The fingerprint of a charge's Idempotency-Key; '' without one.
local function request_of(at)
    local request = sub(identities, requests_at + 4 * at, requests_at + 4 * at + 3)
    return request == '\0\0\0\0' and '' or request
end

local function accept(left, outcome, spare_left)
    beside[#beside + 1] = {count_accepted, outcome, spare_left, left}
    count_accepted = count_accepted + 1
    lefts[count_accepted] = left ~= '' and exact(left) or 0
end

local function answer(at, ...)
    others[#others + 1] = {at, ...}
    left_out[#left_out + 1] = at
end

local function answer_again(at, payload, seen)
    answer(at, sub(seen, 1, 8) == payload and DUPLICATE or CONFLICT, seen)
end

local function expire(at, customer_key, pool, left, opened)
    if not opened then return answer(at, ACCEPTED) end
    local _, outcome = apply[EXPIRY](customer_key, pool, left)
    accept('', outcome, '')
end

-- The long way, for any kind.
local function change(at, key, frozen, kind, blocks, tenant, customer, pool, opening, amount, spare, for_spare)
    local bucket, field = place_of(identities, digests_at + 16 * at)
    local payload = sub(identities, payloads_at + 8 * at, payloads_at + 8 * at + 7)
    local seen = call('HGET', remembered_now .. bucket, field) or call('HGET', remembered_before .. bucket, field)
    if seen then return answer_again(at, payload, seen) end
    if frozen then return answer(at, FROZEN, frozen) end
    local state = call('HMGET', key, pool, pool .. '.o')
    local left = open_pool(openings, key, tenant, customer, pool, state[1] or '0', state[2] or nil, opening)
    local status, outcome = apply[kind](key, pool, left, amount, blocks == 1, spare, for_spare)
    left = call('HGET', key, pool) or '0'
    local spare_left = spare ~= '' and call('HGET', key, spare) or '0'
    if status ~= ACCEPTED then return answer(at, status, left, spare_left) end
    local request = requests_at and request_of(at) or ''
    call('HSET', remembered_now .. bucket, field, memory_of(payload, request, amount, left, spare_left, outcome))
    accept(left, outcome, spare_left)
end

-- Charges that have all but their amounts in common, one after the other. Usage of a pool that is open and alone covers it takes the
-- short way: its pool is read once and written once a run, and one command says whether an identity is new and remembers it. Returns
-- where the next run begins.
local function settle(from)
    local count, kind, blocks, tenant_version, customer_version, customer, tenant, pool, opening, spare, for_spare, in_text, next_run
        = from_bytes(HEAD, runs, from)
    local first, amount, after = place
    place = first + count
    local texts
    if in_text == 1 then
        texts = {}
        for at = first, place - 1 do texts[at], next_run = from_bytes(TEXT, runs, next_run) end
    end
    if kind == TICK then
        accept('', '', '')
        return next_run
    end
    local key, opened_field = prefix .. ':c:' .. customer, pool .. '.o'
    local state = call('HMGET', key, pool, opened_field, 'v', 'z')
    local left, opened, frozen = state[1], state[2], state[4]
    if kind == EXPIRY then
        for at = first, place - 1 do
            expire(at, key, pool, left, opened)
            opened = false
        end
        return next_run
    end
    local is_stale = terms_are_stale(key, tenant, tenant_version, customer_version, state[3])
    local is_simple = kind == USAGE and spare == '' and in_text == 0 and not frozen and not is_stale
    left = is_simple and opened == opening and exact(left)
    local changed = false
    for at = first, place - 1 do
        amount = from_bytes(AMOUNT, runs, AMOUNTS_AT + 8 * at)
        after = left and left + amount
        if after and (after >= 0 or blocks == 0 or amount == 0) and after >= -EXACT then
            local digest_at, payload_at = digests_at + 16 * at, payloads_at + 8 * at
            local low = byte(identities, digest_at + 1)
            local nibble = (low - low % 16) / 16 + 1
            local high, field = sub(identities, digest_at, digest_at), sub(identities, digest_at + 1, digest_at + 9)
            nibble = sub(NIBBLES, nibble, nibble)
            local payload = sub(identities, payload_at, payload_at + 7)
            local seen = call('HGET', remembered_before .. high .. nibble, field)
            if seen then
                answer_again(at, payload, seen)
            else
                local remembered = remembered_now .. high .. nibble
                local memory = payload .. to_bytes(MEMORY, now_ms, after, amount)
                if requests_at then memory = memory .. request_of(at) end
                if call('HSETNX', remembered, field, memory) == 1 then
                    left, changed, count_accepted = after, true, count_accepted + 1
                    lefts[count_accepted] = after
                else
                    answer_again(at, payload, call('HGET', remembered, field))
                end
            end
        else
            if is_stale then
                answer(at, STALE)
            else
                if changed then call('HSET', key, pool, format('%d', left)) end
                local text = texts and texts[at] or format('%d', amount)
                change(at, key, frozen, kind, blocks, tenant, customer, pool, opening, text, spare, for_spare)
                state = call('HMGET', key, pool, opened_field)
                left, changed = is_simple and state[2] == opening and exact(state[1]), false
            end
        end
    end
    if changed then call('HSET', key, pool, format('%d', left)) end
    return next_run
end

local AT_ONCE = 100

-- Numbers as 8 bytes each, as a MessagePack binary.
local function binary_of(numbers)
    local pieces = {'\198' .. to_bytes('>I4', 8 * #numbers)}
    for first = 1, #numbers, AT_ONCE do
        local last = math.min(first + AT_ONCE - 1, #numbers)
        pieces[#pieces + 1] = to_bytes('>' .. string.rep('i8', last - first + 1), unpack(numbers, first, last))
    end
    return table.concat(pieces)
end

-- Adds what was accepted to the log. Returns the entry's sequence, 0 without one.
local function append(lefts_packed, beside_packed, generation)
    if count_accepted == 0 and #openings == 0 then return 0 end
    local sequence = call('HINCRBY', prefix .. ':m', 'seq', 1)
    local entry = '\151' .. char(form) .. pack(now_ms) .. (#left_out > 0 and pack(left_out) or '\144') .. lefts_packed .. beside_packed
        .. array(openings) .. (count_accepted > 0 and records or '\192')
    call('XADD', prefix .. ':log', format('%d-0', sequence), 'd', entry)
    call('HSET', prefix .. ':m', 'generation', generation, 'now_ms', format('%d', now_ms))
    return sequence
end

local epoch, generation_s = ARGV[1], tonumber(ARGV[2])
local clock = call('TIME')
local clock_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- The run of the server that this is; it changes with every start. A server that does not tell counts as never restarted.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'untold'

local moments, generations = {}, {}
for i, tag in ipairs(KEYS) do
    local meta = call('HMGET', tag .. ':m', 'epoch', 'generation', 'now_ms', 'run', 'seq', 'closed')
    if meta[1] ~= epoch then
        return redis.error_reply('EPOCH partition ' .. tag .. ' holds ' .. (meta[1] or 'no epoch') .. ', expected ' .. epoch)
    end
    if meta[6] then return redis.error_reply('CLOSED ' .. meta[6]) end
    if meta[4] ~= run then return redis.error_reply('RESTARTED since the till was compared with the book') end
    local told = ARGV[3 * i + 2]
    if tonumber(meta[5] or '0') < tonumber(told) then
        return redis.error_reply('BEHIND partition ' .. tag .. ' is at ' .. (meta[5] or '0') .. ' and has acknowledged ' .. told)
    end
    -- Neither time nor generation goes back, whatever the machine's clock does.
    moments[i] = math.max(clock_ms, tonumber(meta[3] or '0'))
    generations[i] = math.max(math.floor(moments[i] / 1000 / generation_s), tonumber(meta[2] or '0'))
end

local reply = {}
for i, tag in ipairs(KEYS) do
    prefix, now_ms, runs, records = tag, moments[i], ARGV[3 * i], ARGV[3 * i + 1]
    remembered_now, remembered_before = tag .. ':d:' .. generations[i] .. ':', tag .. ':d:' .. (generations[i] - 1) .. ':'
    tenant_versions, lefts, count_accepted, beside, left_out, openings, others = {}, {}, 0, {}, {}, {}, {}
    local count
    form, count = from_bytes(FORM_AND_COUNT, runs)
    local at = AMOUNTS_AT + 8 * count
    -- What tells records apart are three binaries, each with a header of five bytes that ends with its length.
    if form == COLUMNS then identities, digests_at = records, 7 else identities, digests_at = runs, at + 5 end
    payloads_at = digests_at + 16 * count + 5
    requests_at = payloads_at + 8 * count + 5
    local requests_length = from_bytes('>I4', identities, requests_at - 4)
    if form ~= COLUMNS then at = requests_at + requests_length end
    if requests_length == 0 then requests_at = nil end
    place = 0
    while at <= #runs do at = settle(at) end
    local lefts_packed, beside_packed = binary_of(lefts), pack(beside)
    reply[i] = '\149' .. pack(append(lefts_packed, beside_packed, generations[i]), now_ms) .. lefts_packed .. beside_packed .. pack(others)
end
return array(reply)
