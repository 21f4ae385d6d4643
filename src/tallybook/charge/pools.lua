-- The pools of a customer's state in text, and what becomes of them. Stands between amounts.lua and charge.lua in the script.

local find, match = string.find, string.match
local USAGE, ADJUSTMENT, SET, EXPIRY, TICK, VOID = 0, 1, 2, 3, 4, 5
local ACCEPTED, DUPLICATE, CONFLICT, REFUSED, STALE, LIMIT, FROZEN = 0, 1, 2, 3, 4, 5, 6
local POOL_BOUND = 4e18

-- A customer's state in text, without what it is frozen for, e.g. "3;17.b.1763596800=1000:950;credits=:20;": the version of its terms, then
-- each pool with what it was opened with (nothing: it only ever paid for another pool) and what is left. The pool used last comes first.

-- What a pool was opened with and what is left in it; nil when there is none.
local function pool_in(state, pool)
    local _, name_end = find(state, ';' .. pool .. '=', 1, true)
    if name_end then return match(state, '^(-?%d*):(-?%d+);', name_end + 1) end
end

local function without_pool(state, pool)
    local at, name_end = find(state, ';' .. pool .. '=', 1, true)
    return at and sub(state, 1, at) .. sub(state, find(state, ';', name_end, true) + 1) or state
end

-- The state with a pool as given, at the front.
local function with_pool(state, pool, opening, left)
    local others = without_pool(state, pool)
    local version_end = find(others, ';', 1, true)
    return sub(others, 1, version_end) .. pool .. '=' .. opening .. ':' .. left .. sub(others, version_end)
end

-- Each kind says what becomes of a pool and its spare pool, given what is left in them: a status, what is left then, and the outcome to
-- log. `amount` is signed: what is added to the pool. Without a spare pool `spare_left` is nil.
local apply = {}

apply[USAGE] = function(left, amount, blocks, spare_left)
    local after = sum(left, amount)
    if tonumber(after) < -POOL_BOUND then return LIMIT end
    if not is_negative(after) or not blocks or amount == '0' then return ACCEPTED, after, spare_left, '' end
    if not spare_left then return REFUSED end
    local covers = is_positive(left)
    local shortage = covers and after or amount
    local spare_after = sum(spare_left, shortage)
    if is_negative(spare_after) then return REFUSED end
    return ACCEPTED, covers and '0' or left, spare_after, negated(shortage)
end

-- What is taken away by hand comes from the spare pool first, and only the rest from the pool; neither is left below zero by it. The
-- outcome is the part of the spare pool, negative.
local function take_away(left, amount, spare_left)
    local rest, outcome, spare_after = amount, '', spare_left
    if is_positive(spare_left) then
        rest = sum(spare_left, amount)
        if not is_negative(rest) then return ACCEPTED, left, rest, amount end
        spare_after, outcome = '0', negated(spare_left)
    end
    local after = sum(left, rest)
    if is_negative(after) then return REFUSED end
    return ACCEPTED, after, spare_after, outcome
end

apply[ADJUSTMENT] = function(left, amount, blocks, spare_left)
    if spare_left then return take_away(left, amount, spare_left) end
    local after = sum(left, amount)
    if math.abs(tonumber(after)) > POOL_BOUND then return LIMIT end
    if is_negative(after) and blocks and is_negative(amount) then return REFUSED end
    return ACCEPTED, after, nil, ''
end

apply[SET] = function(left, amount, blocks, spare_left)
    if blocks and is_negative(amount) then return REFUSED end
    return ACCEPTED, amount, spare_left, left
end

-- Both parts go back to where they came from, or neither does.
apply[VOID] = function(left, amount, blocks, spare_left, for_spare)
    local after, spare_after = sum(left, amount), spare_left and sum(spare_left, for_spare)
    if tonumber(after) > POOL_BOUND or tonumber(spare_after or '0') > POOL_BOUND then return LIMIT end
    return ACCEPTED, after, spare_after, negated(for_spare or '0')
end
