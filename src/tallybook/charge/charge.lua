-- The till: the only place where usage is deduplicated, checked, deducted and logged. One call is one atomic step.
--
-- KEYS[i]    the hash tag of a partition, "{p07}"
-- ARGV[1]    the epoch this installation must have
-- ARGV[2]    length of a dedupe generation in seconds (an identity is remembered for one to two generations)
-- ARGV[3i]   the charges of KEYS[i]: the form of their log entry, how many, an amount each (8 bytes), what tells them apart
--            (core/packed_log.py), whom the runs are of (charge/commands.py); then the runs, which have all else in common, as `HEAD`
--            says; those with an amount beyond EXACT end with the amounts in text
-- ARGV[3i+1] their records in the same order, which are copied into the log
-- ARGV[3i+2] the highest log sequence of KEYS[i] that the caller has been told of
-- Returns MessagePack: for each partition {sequence or 0, now in ms, what is left after each accepted charge (8 bytes each), of these
-- the ones that met something worth telling {number, outcome, spare left, left in text}, the others {place, status, ...}}.
--
-- What a partition knows of customers and tenants is one hash; a field is a customer's whole state in text (charge/states.py). What the
-- charges need of it is read at once, changed here, and written at once when all are settled. Amounts are text, or numbers for as long
-- as doubles are exact (`EXACT` is asked after each sum); what is beyond that is added in two halves (amounts.lua). Whatever can fail is
-- checked before the first write. The script is bytes.lua, amounts.lua, pools.lua and this file, one after the
-- other.

if redis.replicate_commands then redis.replicate_commands() end

local FORM_AND_COUNT, AMOUNTS_AT, COUNTS = '>BI4', 6, '>I2I2I2B'
-- How many charges, kind, flags, and how the customer's state begins when its terms are these, its first pool is this one, and what is
-- left stands before the text. With a spare pool, this and what goes back to it follow; with amounts in text, these.
local HEAD = '>I2BBBc0'
local BLOCKS, HAS_SPARE, HAS_TEXTS = 1, 2, 4
local TEXT, TWO_TEXTS = 'Bc0', 'Bc0Bc0'
-- What is remembered of an identity after its payload: when, what was left, the amount (charge/identities.py); a larger one in text.
local MOMENT, MEMORY, MEMORY_AMOUNT = '>I6', '>i7i6', 2 ^ 47 - 1
local IN_TEXT = 2 ^ 47
-- How many fields are handed over at once: Lua's stack is bounded.
local FIELDS_AT_ONCE = 4000
-- Before a state's text stands what is left in its first pool, where that lacks it (charge/states.py).
local NUMBER, TEXT_AT, MARK = '>i8', 9, '!'
local NOTHING = string.rep('\0', 8) .. '0;'
-- A tenant's version is longer than what Redis keeps in a list that it searches from one end to the other.
local VERSION = '%-65d'

local call, from_bytes, char = redis.call, struct.unpack, string.char

-- The partition that is being charged: names of its keys, what was asked, what it knows, and what is answered and logged.
local prefix, now_ms, remembered_now, remembered_before
local runs, records, form, digests_at, payloads_at, requests_at, place, amounts
local names, own_place, terms, terms_of, run_number, states, versions, changed, places_changed
local moment, lefts, count_accepted, beside, left_out, openings, others

-- A customer's state in text, without what it is frozen for, and that. `who` is its place in `names`.
local function state_of(who)
    local value = states[who] or NOTHING
    local state, reason = sub(value, TEXT_AT)
    if sub(state, 1, 1) == MARK then
        local reason_at = find(state, MARK, 2, true)
        state, reason = sub(state, 2, reason_at - 1), sub(state, reason_at + 1)
    end
    local at = find(state, ':;', 1, true)
    if at then state = sub(state, 1, at) .. format('%d', from_bytes(NUMBER, value)) .. sub(state, at + 1) end
    return state, reason
end

-- Notes what is to be stored; of the same field, what is noted last.
local function change_value(who, value)
    local at = places_changed[who]
    if not at then
        at = #changed + 1
        places_changed[who], changed[at] = at, names[who]
    end
    changed[at + 1] = value
end

-- What is left in the first pool is kept as a number before the text, if a double can say it.
local function put_state(who, state, reason)
    local head, left, rest = match(state, '^(%d+;[^:;]*:)(-?%d+)(;.*)$')
    local number = left and exact(left)
    if number then state = head .. rest end
    if reason then state = MARK .. state .. MARK .. reason end
    states[who] = to_bytes(NUMBER, number or 0) .. state
end

local function change_state(who, state, reason)
    put_state(who, state, reason)
    change_value(who, states[who])
end

-- So many values in the same format each, and what comes after them.
local function values_in(format_of_each, count, at)
    local values = {}
    for first = 1, count, AT_ONCE do
        local many = math.min(AT_ONCE, count - first + 1)
        local found = {from_bytes('>' .. rep(format_of_each, many), runs, at)}
        at, found[many + 1] = found[many + 1], nil
        if many == count then return found, at end
        for i = 1, many do values[first + i - 1] = found[i] end
    end
    return values, at
end

-- Reads the states that the charges need, and the versions of their tenants' terms. Returns where the runs begin.
local function load_states(at)
    local run_count, tenant_count, terms_count, is_shared
    run_count, tenant_count, terms_count, is_shared, at = from_bytes(COUNTS, runs, at)
    names, at = values_in(TEXT, run_count + tenant_count, at)
    states, versions, changed, places_changed, terms, own_place, terms_of = {}, {}, {}, {}, {}, nil, nil
    for i = 1, terms_count do
        local place, version
        place, version, at = from_bytes('>I2I6', runs, at)
        terms[i] = {place, version}
    end
    if is_shared == 1 then own_place, at = values_in('I2', run_count, at) end
    if terms_count > 1 then terms_of, at = values_in('I2', run_count, at) end
    for first = 1, #names, FIELDS_AT_ONCE do
        local found = call('HMGET', prefix .. ':c', unpack(names, first, math.min(first + FIELDS_AT_ONCE - 1, #names)))
        if first == 1 then
            states = found
        else
            for i = 1, #found do states[first + i - 1] = found[i] end
        end
    end
    for _, priced in ipairs(terms) do versions[priced[1]] = tonumber(states[priced[1]] or '0') end
    return at
end

local function store_states()
    for first = 1, #changed, FIELDS_AT_ONCE do
        call('HSET', prefix .. ':c', unpack(changed, first, math.min(first + FIELDS_AT_ONCE - 1, #changed)))
    end
end

-- The terms a run was priced with must not be older than what the till has been told. Newer ones are learned.
local function terms_are_stale(who, tenant, tenant_version, version)
    local state, reason = state_of(who)
    local known, known_version = versions[tenant], tonumber(match(state, '^%d+'))
    if tenant_version < known or version < known_version then return true end
    if tenant_version > known then
        versions[tenant] = tenant_version
        change_value(tenant, format(VERSION, tenant_version))
    end
    if version > known_version then
        change_state(who, format('%d', version) .. sub(state, find(state, ';', 1, true), -1), reason)
    end
    return false
end

-- What is remembered of an identity: in numbers where these can say it.
local function memory_of(payload, request, amount, left, spare_left, outcome)
    local number, left_number = exact(amount), exact(left)
    local plain = spare_left == '0' and (outcome == '' or outcome == '0')
    if plain and number and left_number and number <= MEMORY_AMOUNT and number >= -MEMORY_AMOUNT then
        return payload .. moment .. to_bytes(MEMORY, left_number, number) .. request
    end
    if request == '' then request = '\0\0\0\0' end
    local text = amount .. ',' .. left .. ',' .. spare_left .. ',' .. (outcome == '' and '0' or outcome)
    return payload .. to_bytes(MOMENT, now_ms + IN_TEXT) .. request .. text
end

-- The fingerprint of a charge's Idempotency-Key; '' without one.
local function request_of(at)
    local request = sub(runs, requests_at + 4 * at, requests_at + 4 * at + 3)
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

local function expire(at, who, pool)
    local state, reason = state_of(who)
    local opened, left = pool_in(state, pool)
    if not opened or opened == '' then return answer(at, ACCEPTED) end
    change_state(who, without_pool(state, pool), reason)
    accept('', left, '')
end

-- A state with the pool open, and what is left in that: opened on first use, moved by the difference when its terms grant another amount
-- than before.
local function with_open_pool(state, who, tenant, pool, opening)
    local opened, left = pool_in(state, pool)
    if opened == opening then return state, left end
    left = sum(left or '0', sum(opening, negated(opened and opened ~= '' and opened or '0')))
    openings[#openings + 1] = pack({sub(tenant, 2), names[who], pool, opened or '', opening})
    return with_pool(state, pool, opening, left), left
end

-- The long way, for any kind.
local function change(at, who, kind, blocks, tenant, pool, opening, amount, spare, for_spare)
    local bucket, field = place_of(runs, digests_at + 16 * at)
    local payload = sub(runs, payloads_at + 8 * at, payloads_at + 8 * at + 7)
    local seen = call('HGET', remembered_now .. bucket, field) or call('HGET', remembered_before .. bucket, field)
    if seen then return answer_again(at, payload, seen) end
    local state, reason = state_of(who)
    if reason then return answer(at, FROZEN, reason) end
    local left, spare_opened, spare_left
    local before = state
    state, left = with_open_pool(state, who, tenant, pool, opening)
    if spare then
        spare_opened, spare_left = pool_in(state, spare)
        spare_left = spare_left or '0'
    end
    local status, after, spare_after, outcome = apply[kind](left, amount, blocks, spare_left, for_spare)
    if status ~= ACCEPTED then
        if state ~= before then change_state(who, state) end
        return answer(at, status, left, spare_left or '0')
    end
    if spare and spare_after ~= spare_left then state = with_pool(state, spare, spare_opened or '', spare_after) end
    change_state(who, with_pool(state, pool, opening, after))
    local request = requests_at and request_of(at) or ''
    spare_after = spare_after or '0'
    call('HSET', remembered_now .. bucket, field, memory_of(payload, request, amount, after, spare_after, outcome))
    accept(after, outcome, spare_after)
end

-- What is left in a pool, when it is open as the terms say and doubles can say it, and the state's text; then the pool comes first.
local function left_at_front(who, expected, pool, opening)
    local text = states[who] and sub(states[who], TEXT_AT) or ''
    if sub(text, 1, #expected) ~= expected then
        local state, reason = state_of(who)
        local opened, left = pool_in(state, pool)
        if reason or opened ~= opening or not exact(left) then return nil end
        put_state(who, with_pool(state, pool, opening, left))
        text = sub(states[who], TEXT_AT)
    end
    return from_bytes(NUMBER, states[who]), text
end

local function put_back(who, left, text)
    states[who] = to_bytes(NUMBER, left) .. text
    change_value(who, states[who])
end

-- Charges that have all but their amounts in common, one after the other. Usage of a pool that is open and alone covers it takes the
-- short way: what is left is a number, and one command says whether an identity is new and remembers it. Returns where the next run
-- begins.
local function settle(from)
    local count, kind, flags, expected, next_run = from_bytes(HEAD, runs, from)
    local first, who, priced = place, own_place and own_place[run_number] or run_number, terms[terms_of and terms_of[run_number] or 1]
    local spare, for_spare, texts
    place = first + count
    local blocks = flags % 2 == BLOCKS
    if flags > BLOCKS then
        if flags % HAS_TEXTS >= HAS_SPARE then spare, for_spare, next_run = from_bytes(TWO_TEXTS, runs, next_run) end
        if flags >= HAS_TEXTS then
            texts = {}
            for at = first, place - 1 do texts[at], next_run = from_bytes(TEXT, runs, next_run) end
        end
    end
    if kind == TICK then
        accept('', '', '')
        return next_run
    end
    local is_simple, is_stale, is_moved, left, pool, opening = kind == USAGE and flags <= BLOCKS, false, false
    local value, text = states[who]
    if is_simple and value and priced[2] == versions[priced[1]] then
        text = sub(value, TEXT_AT)
        if text == expected or sub(text, 1, #expected) == expected then left = from_bytes(NUMBER, value) end
    end
    if not left then
        local version
        version, pool, opening = match(expected, '^(%d+);(.*)=(-?%d+):;$')
        if kind == EXPIRY then
            for at = first, place - 1 do expire(at, who, pool) end
            return next_run
        end
        is_stale = terms_are_stale(who, priced[1], priced[2], tonumber(version))
        is_simple = is_simple and not is_stale
        if is_simple then left, text = left_at_front(who, expected, pool, opening) end
    end
    for at = first, place - 1 do
        local amount = amounts[at + 1]
        local after = left and left + amount
        if after and (after >= 0 or not blocks or amount == 0) and after >= -EXACT and after <= EXACT then
            local digest_at, payload_at = digests_at + 16 * at, payloads_at + 8 * at
            local low = byte(runs, digest_at + 1)
            local bucket = sub(runs, digest_at, digest_at) .. SIX_BITS[(low - low % 4) / 4]
            local field, payload = sub(runs, digest_at + 1, digest_at + 9), sub(runs, payload_at, payload_at + 7)
            local seen = call('HGET', remembered_before .. bucket, field)
            if seen then
                answer_again(at, payload, seen)
            else
                local remembered, memory = remembered_now .. bucket
                if amount >= -MEMORY_AMOUNT and amount <= MEMORY_AMOUNT then
                    memory = payload .. moment .. to_bytes(MEMORY, after, amount)
                    if requests_at then memory = memory .. request_of(at) end
                else
                    local request = requests_at and request_of(at) or ''
                    memory = memory_of(payload, request, format('%d', amount), format('%d', after), '0', '')
                end
                if call('HSETNX', remembered, field, memory) == 1 then
                    left, is_moved, count_accepted = after, true, count_accepted + 1
                    lefts[count_accepted] = after
                else
                    answer_again(at, payload, call('HGET', remembered, field))
                end
            end
        elseif is_stale then
            answer(at, STALE)
        else
            if is_moved then put_back(who, left, text) end
            if not pool then pool, opening = match(expected, '^%d+;(.*)=(-?%d+):;$') end
            local exact_amount = texts and texts[at] or format('%d', amount)
            change(at, who, kind, blocks, names[priced[1]], pool, opening, exact_amount, spare, for_spare)
            left, is_moved = nil, false
            if is_simple then left, text = left_at_front(who, expected, pool, opening) end
        end
    end
    if is_moved then put_back(who, left, text) end
    return next_run
end

local text_of = remembering(function(number) return format('%d', number) end)
local packed = remembering(pack)
local moment_of = remembering(function(ms) return to_bytes(MOMENT, ms) end)

-- Adds what was accepted to the log. Returns the entry's sequence, 0 without one.
local function append(last_sequence, lefts_packed, beside_packed, generation, noted_generation)
    if count_accepted == 0 and #openings == 0 then return 0 end
    local sequence = last_sequence + 1
    local entry = '\151' .. char(form) .. packed(now_ms) .. list_of(left_out) .. lefts_packed .. beside_packed
        .. (openings[1] and array(openings) or '\144') .. (count_accepted > 0 and records or '\192')
    local name, meta = format('%d', sequence), prefix .. ':m'
    call('XADD', prefix .. ':log', name .. '-0', 'd', entry)
    if generation == noted_generation then
        call('HSET', meta, 'seq', name, 'now_ms', text_of(now_ms))
    else
        call('HSET', meta, 'seq', name, 'now_ms', text_of(now_ms), 'generation', generation)
    end
    return sequence
end

local epoch, generation_s = ARGV[1], tonumber(ARGV[2])
local clock = call('TIME')
local clock_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- The run of the server that this is; it changes with every start. A server that does not tell counts as never restarted.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and match(info, 'run_id:(%x+)') or 'untold'

local moments, generations, noted_generations, sequences = {}, {}, {}, {}
for i, tag in ipairs(KEYS) do
    local meta = call('HMGET', tag .. ':m', 'epoch', 'generation', 'now_ms', 'run', 'seq', 'closed')
    if meta[1] ~= epoch then
        return redis.error_reply('EPOCH partition ' .. tag .. ' holds ' .. (meta[1] or 'no epoch') .. ', expected ' .. epoch)
    end
    if meta[6] then return redis.error_reply('CLOSED ' .. meta[6]) end
    if meta[4] ~= run then return redis.error_reply('RESTARTED since the till was compared with the book') end
    local told = ARGV[3 * i + 2]
    sequences[i] = tonumber(meta[5] or '0')
    if sequences[i] < tonumber(told) then
        return redis.error_reply('BEHIND partition ' .. tag .. ' is at ' .. (meta[5] or '0') .. ' and has acknowledged ' .. told)
    end
    -- Neither time nor generation goes back, whatever the machine's clock does.
    moments[i] = math.max(clock_ms, tonumber(meta[3] or '0'))
    noted_generations[i] = tonumber(meta[2] or '0')
    generations[i] = math.max(math.floor(moments[i] / 1000 / generation_s), noted_generations[i])
end

local reply = {}
for i, tag in ipairs(KEYS) do
    prefix, now_ms, runs, records = tag, moments[i], ARGV[3 * i], ARGV[3 * i + 1]
    remembered_now, remembered_before = tag .. ':d:' .. text_of(generations[i]) .. ':', tag .. ':d:' .. text_of(generations[i] - 1) .. ':'
    moment, lefts, count_accepted, beside, left_out, openings, others = moment_of(now_ms), {}, 0, {}, {}, {}, {}
    local count
    form, count = from_bytes(FORM_AND_COUNT, runs)
    local at
    amounts, at = values_in('i8', count, AMOUNTS_AT)
    -- What tells records apart are three binaries, each with a header of five bytes that ends with its length.
    digests_at = at + 5
    payloads_at = digests_at + 16 * count + 5
    requests_at = payloads_at + 8 * count + 5
    local requests_length = from_bytes('>I4', runs, requests_at - 4)
    at = load_states(requests_at + requests_length)
    if requests_length == 0 then requests_at = nil end
    place, run_number = 0, 1
    while at <= #runs do at, run_number = settle(at), run_number + 1 end
    store_states()
    local lefts_packed, beside_packed = binary_of(lefts), list_of(beside)
    local sequence = append(sequences[i], lefts_packed, beside_packed, text_of(generations[i]), text_of(noted_generations[i]))
    reply[i] = '\149' .. pack(sequence) .. packed(now_ms) .. lefts_packed .. beside_packed .. list_of(others)
end
return array(reply)
