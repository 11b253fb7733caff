--- Compiled regular expressions of this VM, and searching with them. Nothing but the cache here owns one: whoever goes on after
--- code of a script has run looks it up again, because that may have pushed it out.

local ffi = require "ffi"
local abi = require "moongate._core.abi"

local C = abi.C
local ffi_string = ffi.string

local regexes = {}

local CACHE_MAX = 128 -- of each of two halves
local FAULT_LEN = 160
local LETTERS = { i = abi.REGEX_CASELESS, m = abi.REGEX_MULTILINE, s = abi.REGEX_DOTALL,
  x = abi.REGEX_EXTENDED, u = abi.REGEX_UTF, a = abi.REGEX_ANCHORED, j = 0, o = 0 }

local spans = ffi.new "struct moon_abi_regex_span[256]"
regexes.spans = spans

-- Made at the first use: a VM that matches nothing has none. Gone with the VM.
local scratch, fault

local function start()
  scratch = ffi.gc(C.moon_abi_regex_scratch_new(), C.moon_abi_regex_scratch_free)
  fault = ffi.new("char[?]", FAULT_LEN)
end

-- ---- options

local flags_of, flags_count = { [""] = 0 }, 0

--- The flags of a text of options; nil and the letter that is none.
function regexes.flags(options)
  local flags = flags_of[options]
  if flags then return flags end
  local is_set = {}
  flags = 0
  for letter in options:gmatch "." do
    local flag = LETTERS[letter]
    if not flag then return nil, letter end
    if not is_set[flag] then flags = flags + flag end
    is_set[flag] = true
  end
  if flags_count < 64 then
    flags_count = flags_count + 1
    flags_of[options] = flags
  end
  return flags
end

-- ---- the cache: what was used since the last but one change of halves stays

---@class moongate.RegexEntry
---@field regex ffi.cdata*? nil: the pattern is wrong
---@field fault string?
---@field names table<string, integer> the group of a name; of several the first
---@field is_named boolean
---@field template_text string? the replacement that was last used, and what it means
---@field template table?

local young, old, young_count = {}, {}, 0 -- flags -> pattern -> entry

local function names_of(regex)
  local name, names, index = ffi.new "struct moon_abi_text", {}, 0
  while true do
    local group = C.moon_abi_regex_name(regex, index, name)
    if group == 0 then return names end
    local own = ffi_string(name.ptr, name.len)
    names[own] = math.min(names[own] or group, group)
    index = index + 1
  end
end

local function compile(pattern, flags)
  if not scratch then start() end
  local regex = C.moon_abi_regex_new(pattern, #pattern, flags, fault, FAULT_LEN)
  if regex == nil then return { fault = "pattern: " .. ffi_string(fault) } end
  regex = ffi.gc(regex, C.moon_abi_regex_free)
  local names = names_of(regex)
  return { regex = regex, names = names, is_named = next(names) ~= nil }
end

local function free_old()
  for _, by_pattern in pairs(old) do
    for _, entry in pairs(by_pattern) do
      if entry.regex then
        C.moon_abi_regex_free(ffi.gc(entry.regex, nil))
        entry.regex = nil
      end
    end
  end
end

local function find_slowly(pattern, flags)
  local entry = old[flags] and old[flags][pattern]
  if entry then
    old[flags][pattern] = nil
  else
    entry = compile(pattern, flags)
  end
  if young_count >= CACHE_MAX then
    free_old()
    young, old, young_count = {}, young, 0
  end
  if not young[flags] then young[flags] = {} end
  young[flags][pattern] = entry
  young_count = young_count + 1
  return entry
end

--- The compiled pattern; good until code of a script runs.
---@return moongate.RegexEntry
function regexes.find(pattern, flags)
  local by_pattern = young[flags]
  return by_pattern and by_pattern[pattern] or find_slowly(pattern, flags)
end

-- ---- searching

--- How many spans of regexes.spans are filled, 0: no match, less: it gave up. `from` counts from 0; -1 - from after an empty
--- match that ended there.
function regexes.search(entry, subject, from)
  return C.moon_abi_regex_search(entry.regex, scratch, subject, #subject, from, spans)
end

--- The text of a group of the last match, or false.
function regexes.group(subject, i)
  local from = spans[i].from
  return from >= 0 and subject:sub(from + 1, spans[i].to)
end

--- The groups of the last match: [0] is the whole.
function regexes.captures(entry, subject, count)
  local captures = {}
  for i = 0, count - 1 do
    local span = spans[i]
    local from = span.from
    captures[i] = from >= 0 and subject:sub(from + 1, span.to)
  end
  if entry.is_named then
    for name, group in pairs(entry.names) do captures[name] = captures[group] end
  end
  return captures
end

--- Where to go on behind the last match.
function regexes.next()
  local span = spans[0]
  return span.from == span.to and -1 - span.to or span.to
end

return regexes
