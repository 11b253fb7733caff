--- Shared dictionaries as Lua sees them: what moongate.shared gives. The dictionary itself is the core's, one a name for all
--- workers; a handle finds it at its first use, because there is none yet while the script is evaluated.
---
--- Results are those of OpenResty's ngx.shared.DICT. Arguments that cannot be right are errors at the line of the call; what
--- the world brings (no such key, no memory) is nil or false and a text.

local ffi = require "ffi"
local abi = require "moongate._core.abi"
local native = require "moongate._core.native"

local C = abi.C
local vm = native.vm and ffi.cast("void *", native.vm)
local ffi_string = ffi.string
local value = ffi.new "struct moon_abi_dict_value"
local setting = ffi.new "struct moon_abi_dict_set"
local incr = ffi.new "struct moon_abi_dict_incr"
local keys = ffi.new "struct moon_abi_dict_keys"
local out = ffi.new "void *[1]"
local number = ffi.new "double[1]"
local key_len = ffi.new "uint16_t[1]"

local NOT_FOUND, EXISTS, NO_MEMORY = abi.DICT_NOT_FOUND, abi.DICT_EXISTS, abi.DICT_NO_MEMORY
local NOT_NUMBER, TOO_LONG = abi.DICT_NOT_NUMBER, abi.DICT_TOO_LONG
local BOOLEAN, NUMBER, STRING = abi.DICT_BOOLEAN, abi.DICT_NUMBER, abi.DICT_STRING
local ADD, REPLACE, SAFE = abi.DICT_ADD, abi.DICT_REPLACE, abi.DICT_SAFE

local KEPT_LEN = 1048576 -- longest buffer that stays
local KEYS_DEFAULT, KEYS_MAX = 1024, 65536
local FLAGS_MAX = 4294967295
local NIL_KEY = "nil key"

-- One buffer takes what is read, for all dictionaries of the VM.
local buffer = ffi.new("char[?]", 4096)
value.buffer, value.buffer_len = buffer, 4096

---@alias moongate.SharedValue string|number|boolean

---@class moongate.Shared
local dict = {}

-- ---- arguments

local function refuse_dict(self, code)
  local name = ('shared dictionary "%s"'):format(self.name)
  if code == abi.PHASE then
    error(name .. " can be used in phases, timers and init_worker, not while the script is " ..
      "evaluated", 4)
  elseif code == abi.DICTS_FULL then
    error(("%s: there are %d already; names made up at run time are a mistake"):format(
      name, abi.DICTS_MAX_COUNT), 4)
  end
  error(name .. ": the system has no memory for it", 4)
end

-- The dictionary of a handle that is used for the first time, by a method.
local function open(self)
  local code = vm and C.moon_abi_dict_open(vm, self.name, #self.name, self.size, out) or abi.PHASE
  if code == abi.DICTS_OTHER_LEN then
    native.log(2, ('shared dictionary "%s" keeps its %d bytes: %d take a restart'):format(self.name,
      C.moon_abi_dict_capacity(out[0]), self.size))
  elseif code ~= 0 then
    refuse_dict(self, code)
  end
  self.dict = out[0]
  return self.dict
end

-- A key as text, or nil and what is wrong with it.
local function to_key(key)
  if key == nil then return nil, NIL_KEY end
  return tostring(key)
end

local function bad_key(key)
  return key == "" and "empty key" or "key too long"
end

-- Neither negative nor no number at all.
local function to_amount(amount)
  local own = tonumber(amount)
  return own and own >= 0 and own or nil
end

local function to_seconds(seconds, what, level)
  local own = to_amount(seconds)
  if not own then error(what .. " takes seconds, 0 or more", level + 1) end
  return own
end

local function to_count(count, default, what)
  if count == nil then return default end
  local own = to_amount(count)
  if not own then error(what .. " takes a number of keys, 0 or more", 3) end
  return math.floor(own)
end

-- ---- reading

-- Strings longer than the buffer: a longer one, which stays unless that is too much.
local function read_long(look, self_dict, key)
  local code = TOO_LONG
  local longer
  while code == TOO_LONG do
    longer = ffi.new("char[?]", value.len)
    value.buffer, value.buffer_len = longer, value.len
    code = look(vm, self_dict, key, #key, value)
  end
  local text = code == 0 and value.type == STRING and ffi_string(longer, value.len) or nil
  if value.buffer_len <= KEPT_LEN then
    buffer = longer
  else
    value.buffer, value.buffer_len = buffer, ffi.sizeof(buffer)
  end
  return code, text
end

-- What was found, or nil and what is wrong.
local function take(code, look, self_dict, key)
  local text
  if code == TOO_LONG then code, text = read_long(look, self_dict, key) end
  if code == NOT_FOUND then return nil end
  if code ~= 0 then return nil, bad_key(key) end
  local kind = value.type
  if kind == STRING then return text or ffi_string(buffer, value.len) end
  if kind == NUMBER then return value.number end
  return value.number ~= 0
end

--- The value of a key, and its flags where they are not 0; nil where there is none.
---@param key string
---@return moongate.SharedValue? value, integer|string? flags or what is wrong with the key
function dict:get(key)
  local own = key
  if type(key) ~= "string" then
    if key == nil then return nil, NIL_KEY end
    own = tostring(key)
  end
  local self_dict = self.dict or open(self)
  local found, why = take(C.moon_abi_dict_get(vm, self_dict, own, #own, value), C.moon_abi_dict_get,
    self_dict, own)
  if why then return nil, why end
  if found == nil then return nil end
  local flags = value.flags
  if flags ~= 0 then return found, flags end
  return found
end

--- As get, also of a key that has expired and is still there.
---@param key string
---@return moongate.SharedValue? value, integer|string? flags, boolean? is_stale
function dict:get_stale(key)
  local own, err = to_key(key)
  if err then return nil, err end
  local self_dict = self.dict or open(self)
  local found, why = take(C.moon_abi_dict_get_stale(vm, self_dict, own, #own, value),
    C.moon_abi_dict_get_stale, self_dict, own)
  if why then return nil, why end
  if found == nil then return nil end
  local flags = value.flags
  return found, flags ~= 0 and flags or nil, value.is_stale ~= 0
end

-- ---- writing

local function put_value(new)
  local kind = type(new)
  if kind == "string" then
    setting.type, setting.string, setting.len = STRING, new, #new
  elseif kind == "number" then
    setting.type, setting.number = NUMBER, new
  elseif kind == "boolean" then
    setting.type, setting.number = BOOLEAN, new and 1 or 0
  else
    return false
  end
  return true
end

local function put_flags(flags)
  local own = to_amount(flags)
  if not own or own > FLAGS_MAX then error("flags are a number from 0 to 4294967295", 3) end
  setting.flags = own
end

local function store_result(code, key)
  if code == EXISTS then return false, "exists", false end
  if code == NOT_FOUND then return false, "not found", false end
  if code == NO_MEMORY then return false, "no memory", setting.is_forcible ~= 0 end
  return nil, bad_key(key)
end

local function store(self, mode, key, new, ttl, flags)
  local own = key
  if type(key) ~= "string" then
    if key == nil then return nil, NIL_KEY end
    own = tostring(key)
  end
  setting.ttl = 0
  setting.flags = 0
  if ttl and ttl ~= 0 then setting.ttl = to_seconds(ttl, "the time to live", 2) end
  if flags and flags ~= 0 then put_flags(flags) end
  local self_dict = self.dict or open(self)
  if not put_value(new) then return nil, "bad value type" end
  setting.mode = mode
  local code = C.moon_abi_dict_set(vm, self_dict, own, #own, setting)
  if code == 0 then return true, nil, setting.is_forcible ~= 0 end
  return store_result(code, own)
end

local function delete(self, key)
  local own, err = to_key(key)
  if err then return nil, err end
  local code = C.moon_abi_dict_del(self.dict or open(self), own, #own)
  if code == 0 or code == NOT_FOUND then return true, nil, false end
  return nil, bad_key(own)
end

--- Sets a key, whatever was there; nil deletes it. What has not been used for longest makes room.
---@param key string
---@param new moongate.SharedValue?
---@param ttl? number seconds; default 0: for ever
---@param flags? integer 32 bits of your own
---@return boolean? ok, string? err "no memory": it is longer than the dictionary can hold
---@return boolean? forcible whether live keys made room
function dict:set(key, new, ttl, flags)
  if new == nil then return delete(self, key) end
  return store(self, 0, key, new, ttl, flags)
end

--- As set, but nothing live makes room: "no memory" instead.
---@param key string
---@param new moongate.SharedValue?
---@param ttl? number seconds; default 0: for ever
---@param flags? integer
---@return boolean? ok, string? err, boolean? forcible
function dict:safe_set(key, new, ttl, flags)
  if new == nil then return delete(self, key) end
  return store(self, SAFE, key, new, ttl, flags)
end

--- Sets a key that is not there; else false, "exists".
---@param key string
---@param new moongate.SharedValue
---@param ttl? number seconds; default 0: for ever
---@param flags? integer
---@return boolean? ok, string? err, boolean? forcible
function dict:add(key, new, ttl, flags)
  if new == nil then return nil, "attempt to add or replace nil values" end
  return store(self, ADD, key, new, ttl, flags)
end

--- As add, but nothing live makes room: "no memory" instead.
---@param key string
---@param new moongate.SharedValue
---@param ttl? number seconds; default 0: for ever
---@param flags? integer
---@return boolean? ok, string? err, boolean? forcible
function dict:safe_add(key, new, ttl, flags)
  if new == nil then return nil, "attempt to add or replace nil values" end
  return store(self, ADD + SAFE, key, new, ttl, flags)
end

--- Sets a key that is there; else false, "not found".
---@param key string
---@param new moongate.SharedValue
---@param ttl? number seconds; default 0: for ever
---@param flags? integer
---@return boolean? ok, string? err, boolean? forcible
function dict:replace(key, new, ttl, flags)
  if new == nil then return nil, "attempt to add or replace nil values" end
  return store(self, REPLACE, key, new, ttl, flags)
end

local function put_init(init, init_ttl)
  incr.has_init, incr.init_ttl = 0, 0
  if init ~= nil then
    local own = tonumber(init)
    if not own then error("incr takes a number as init, got " .. type(init), 3) end
    incr.has_init, incr.init = 1, own
  elseif init_ttl ~= nil then
    error("incr takes init_ttl with init only", 3)
  end
  if init_ttl ~= nil then incr.init_ttl = to_seconds(init_ttl, "init_ttl of incr", 3) end
end

--- Adds n to a number, as one step for all workers. What is there keeps its time to live.
---@param key string
---@param n number
---@param init? number what a missing key starts from; without it: nil, "not found"
---@param init_ttl? number seconds that a key lives which is made; default 0: for ever
---@return number? sum, string? err, boolean? forcible with init
function dict:incr(key, n, init, init_ttl)
  local own = key
  if type(key) ~= "string" then
    if key == nil then return nil, NIL_KEY end
    own = tostring(key)
  end
  local by = tonumber(n)
  if not by then error("incr takes a number second, got " .. type(n), 2) end
  put_init(init, init_ttl)
  incr.by = by
  local code = C.moon_abi_dict_incr(vm, self.dict or open(self), own, #own, incr)
  if code == 0 then
    if init == nil then return incr.number end
    return incr.number, nil, incr.is_forcible ~= 0
  end
  if code == NOT_FOUND then return nil, "not found" end
  if code == NOT_NUMBER then return nil, "not a number" end
  if code == NO_MEMORY then return nil, "no memory", incr.is_forcible ~= 0 end
  return nil, bad_key(own)
end

--- Deletes a key; true also where there is none.
---@param key string
---@return boolean? ok, string? err
function dict:delete(key)
  return delete(self, key)
end

-- ---- time to live

--- Seconds that a key has left; 0: for ever.
---@param key string
---@return number? seconds, string? err "not found"
function dict:ttl(key)
  local own, err = to_key(key)
  if err then return nil, err end
  local code = C.moon_abi_dict_ttl(vm, self.dict or open(self), own, #own, number)
  if code == 0 then return number[0] end
  return nil, code == NOT_FOUND and "not found" or bad_key(own)
end

--- Gives a key a new time to live.
---@param key string
---@param ttl number seconds; 0: for ever
---@return boolean? ok, string? err "not found"
function dict:expire(key, ttl)
  local own, err = to_key(key)
  if err then return nil, err end
  local seconds = to_seconds(ttl, "expire", 2)
  local code = C.moon_abi_dict_expire(vm, self.dict or open(self), own, #own, seconds)
  if code == 0 then return true end
  return nil, code == NOT_FOUND and "not found" or bad_key(own)
end

-- ---- the whole

-- Appends the keys of a bufferful.
local function unpack_keys(list, from, bytes)
  local at, count = 0, #list
  for i = 1, tonumber(keys.count) do
    ffi.copy(key_len, from + at, 2)
    at = at + 2
    list[count + i] = ffi_string(from + at, key_len[0])
    at = at + key_len[0]
  end
  assert(at == bytes)
end

--- Keys that are live, in no order. It looks at the whole dictionary, and the worker does nothing else meanwhile.
---@param max? integer at most so many, never more than 65536; default 1024, 0: as many as may be
---@return string[]
function dict:get_keys(max)
  local want = to_count(max, KEYS_DEFAULT, "get_keys")
  if want == 0 or want > KEYS_MAX then want = KEYS_MAX end
  local self_dict = self.dict or open(self)
  local list, len = {}, 65536
  local bytes = ffi.new("char[?]", len)
  keys.shard, keys.bucket = 0, 0
  repeat
    keys.buffer, keys.buffer_len, keys.max_count = bytes, len, want - #list
    local code = C.moon_abi_dict_keys(vm, self_dict, keys)
    if code == TOO_LONG then
      len = tonumber(keys.len)
      bytes = ffi.new("char[?]", len)
    else
      unpack_keys(list, bytes, tonumber(keys.len))
    end
  until code == 0 and keys.is_last ~= 0
  return list
end

--- All keys expire at once.
function dict:flush_all()
  C.moon_abi_dict_flush_all(self.dict or open(self))
end

--- Frees keys that have expired. It looks at the whole dictionary, and the worker does nothing else meanwhile.
---@param max? integer at most so many; default 0: all
---@return integer count
function dict:flush_expired(max)
  local want = to_count(max, 0, "flush_expired")
  return C.moon_abi_dict_flush_expired(vm, self.dict or open(self), want)
end

--- The bytes that it was made with.
---@return integer
function dict:capacity()
  return C.moon_abi_dict_capacity(self.dict or open(self))
end

--- The bytes that nothing holds, in one piece or not.
---@return integer
function dict:free_space()
  return C.moon_abi_dict_free_space(self.dict or open(self))
end

-- ---- handles

local handle_t = {
  __index = dict,
  __tostring = function(self) return ('moongate.shared "%s"'):format(self.name) end,
}

-- dict is nil until the first use.
local function new(name, size)
  return setmetatable({ name = name, size = size, dict = nil }, handle_t)
end

return { new = new }
