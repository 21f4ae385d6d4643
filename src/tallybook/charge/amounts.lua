-- Sums of amounts in text, exact however large they are. Stands before pools.lua in the script.

local format = string.format
local EXACT = 2 ^ 53 - 1

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

local HALF, HALF_DIGITS = 1e9, 9

-- An amount as thousands of millions and the rest, both with its sign.
local function halves(amount)
    local digits = is_negative(amount) and sub(amount, 2) or amount
    local high, low = tonumber(sub(digits, 1, -HALF_DIGITS - 1)) or 0, tonumber(sub(digits, -HALF_DIGITS))
    if is_negative(amount) then return -high, -low end
    return high, low
end

-- The sum of two amounts, exact however large they are.
local function sum(one, other)
    local number, more = exact(one), exact(other)
    if number and more and number + more <= EXACT and number + more >= -EXACT then return format('%d', number + more) end
    local high, low = halves(one)
    local more_high, more_low = halves(other)
    high, low = high + more_high, low + more_low
    high, low = high + math.floor(low / HALF), low % HALF
    if high < 0 and low > 0 then high, low = high + 1, low - HALF end
    if high == 0 then return format('%d', low) end
    return format('%d%09d', high, math.abs(low))
end
