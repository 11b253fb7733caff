--- Finalizers of a script's own. LuaJIT raises their errors in whatever allocates, the core included, where nothing catches
--- them and the process ends: they are caught here, and logged.

local native = require "moongate._core.native"

local finalizers = {}

local function guard(fn)
  if type(fn) ~= "function" then return fn end -- a C function
  return function(...)
    local ok, err = pcall(fn, ...)
    if not ok then native.log(3, "script: a finalizer failed: " .. tostring(err)) end
  end
end

-- Of what newproxy makes: the script puts __gc into its metatable.
local guarded = {
  __newindex = function(metatable, key, value)
    rawset(metatable, key, key == "__gc" and guard(value) or value)
  end,
}

--- Before the script, which may keep these functions.
function finalizers.install()
  local ffi = require "ffi"
  local gc, metatype, real_newproxy = ffi.gc, ffi.metatype, newproxy
  -- luacheck: push ignore 121
  function newproxy(kind)
    local proxy = real_newproxy(kind)
    if kind == true then setmetatable(getmetatable(proxy), guarded) end
    return proxy
  end
  -- luacheck: pop
  function ffi.gc(object, fn)
    return gc(object, guard(fn))
  end
  function ffi.metatype(kind, metatable)
    if type(metatable) == "table" and metatable.__gc then metatable.__gc = guard(metatable.__gc) end
    return metatype(kind, metatable)
  end
end

return finalizers
