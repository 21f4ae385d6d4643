-- Values as bytes: what the script is given, and what it answers and logs. Stands first in the script.

local pack, to_bytes, byte, rep = cmsgpack.pack, struct.pack, string.byte, string.rep
local sub = string.sub
-- How many values are handed over at once: Lua's stack is bounded.
local AT_ONCE = 100

-- MessagePack header of an array, in the form that holds any length.
local function array_of(length) return '\221' .. to_bytes('>I4', length) end

local function array(items)
    return array_of(#items) .. table.concat(items)
end

-- What stands for six bits in the name of a bucket.
local SIX_BITS = {}
for bits = 0, 63 do SIX_BITS[bits] = string.char(48 + bits) end

-- Where an identity is kept in each generation: a bucket (its first 14 bits, as a byte and a character) and a field in it.
local function place_of(digests, at)
    local low = byte(digests, at + 1)
    return sub(digests, at, at) .. SIX_BITS[(low - low % 4) / 4], sub(digests, at + 1, at + 9)
end

-- Numbers as 8 bytes each, as a MessagePack binary.
local function binary_of(numbers)
    local pieces = '\198' .. to_bytes('>I4', 8 * #numbers)
    for first = 1, #numbers, AT_ONCE do
        local last = math.min(first + AT_ONCE - 1, #numbers)
        pieces = pieces .. to_bytes('>' .. rep('i8', last - first + 1), unpack(numbers, first, last))
    end
    return pieces
end

-- What many partitions of a call have in common, worked out once.
local function remembering(make)
    local made = {}
    return function(number)
        local found = made[number]
        if not found then
            found = make(number)
            made[number] = found
        end
        return found
    end
end

-- MessagePack of a list, which is mostly empty.
local function list_of(items) return items[1] and pack(items) or '\144' end
