--- Dictionaries that all workers share, and that outlive every reload.

local abi = require "moongate._core.abi"
local dict = require "moongate._core.dict"

---@class moongate.SharedOptions
---@field size? integer bytes, 16384 to 2^38; default 1048576. The first to use a name decides

local SIZE_MAX = abi.DICTS_MAX_GIB * 2 ^ 30

local handles, count = {}, 0 -- by name

local function check_name(name)
  if type(name) ~= "string" then
    error("moongate.shared takes a name first, got " .. type(name), 3)
  end
  if name == "" or #name > abi.DICTS_NAME_MAX_LEN then
    error(("moongate.shared: a name has 1 to %d bytes"):format(abi.DICTS_NAME_MAX_LEN), 3)
  end
end

local function check_size(options)
  if options == nil then return 0 end
  if type(options) ~= "table" then
    error("moongate.shared takes a table second, { size = bytes }, got " .. type(options), 3)
  end
  for key in pairs(options) do
    if key ~= "size" then
      error(("moongate.shared: unknown key %s; there is size"):format(tostring(key)), 3)
    end
  end
  local size = options.size
  if size == nil then return 0 end
  if type(size) ~= "number" or size % 1 ~= 0 or size < abi.DICTS_MIN_LEN or size > SIZE_MAX then
    local got = type(size) == "number" and ("%.14g"):format(size) or type(size)
    error(("moongate.shared: size is %s; it is bytes, from %d to %.0f"):format(
      got, abi.DICTS_MIN_LEN, SIZE_MAX), 3)
  end
  return size
end

--- The dictionary of that name, for every worker the same. It may be asked for at the top of a script, and used in phases,
--- timers and init_worker.
---@param name string 1 to 255 bytes
---@param options? moongate.SharedOptions
---@return moongate.Shared
local function shared(name, options)
  check_name(name)
  local size = check_size(options)
  local handle = handles[name]
  if handle then
    -- Whoever names a size first says it for all who do not.
    if handle.size == 0 and not handle.dict then handle.size = size end
    if size == 0 or size == handle.size then return handle end
    return dict.new(name, size) -- says at its first use which size holds
  end
  count = count + 1
  if count > abi.DICTS_MAX_COUNT then
    error(("moongate.shared: more than %d names; those made up at run time are a mistake"):format(
      abi.DICTS_MAX_COUNT), 2)
  end
  handle = dict.new(name, size)
  handles[name] = handle
  return handle
end

return shared
