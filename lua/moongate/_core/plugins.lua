--- Plugins in Lua: NAME is the module moongate.plugins.NAME.handler, or plugins.NAME.handler beside the script, with a schema
--- in the same place. The handler is a table: version, api = 1, and a function for each phase it has.

local native = require "moongate._core.native"
local schema = require "moongate._core.schema"

local plugins = {}

local PHASES = {
  "rewrite", "access", "header_filter", "body_filter", "websocket_frame", "log", "init_worker",
  "certificate", "preread",
}
local KEYS = { name = true, version = true, api = true, priority = true }
for _, phase in ipairs(PHASES) do KEYS[phase] = true end

local loaded = {} -- by name: { handler =, schema = }

-- Whether the module is somewhere; errors inside of it are errors.
local function find(name)
  if package.loaded[name] then return true end
  if package.preload[name] then return true end
  for i = 2, 3 do
    local loader = package.loaders[i]
    if type(loader(name)) == "function" then return true end
  end
  return false
end

local function check_handler(name, handler)
  if type(handler) ~= "table" then
    error(("handler.lua returns %s, not a table of phases"):format(type(handler)), 0)
  end
  if handler.api ~= 1 then
    error(("handler.lua says api = %s; this gateway has api = 1"):format(tostring(handler.api)), 0)
  end
  for key, value in pairs(handler) do
    if not KEYS[key] and type(value) == "function" then
      local nearest = native.nearest(tostring(key), PHASES)
      error(("handler.lua has a function %s, which is no phase%s"):format(tostring(key),
        nearest and "; did you mean " .. nearest .. "?" or ""), 0)
    end
  end
  for _, phase in ipairs(PHASES) do
    if handler[phase] ~= nil and type(handler[phase]) ~= "function" then
      error(("%s of handler.lua is %s, not a function"):format(phase, type(handler[phase])), 0)
    end
  end
end

--- The plugin's handler, or nil: there is none of that name.
---@param name string
---@return table?
function plugins.load(name)
  if loaded[name] then return loaded[name].handler end
  if not name:find "^[%w_%-%.]+$" then return nil end
  for _, prefix in ipairs { "moongate.plugins.", "plugins." } do
    if find(prefix .. name .. ".handler") then
      local handler = require(prefix .. name .. ".handler")
      check_handler(name, handler)
      local own = find(prefix .. name .. ".schema") and require(prefix .. name .. ".schema") or {}
      if type(own) ~= "table" then error("schema.lua returns no table", 0) end
      loaded[name] = { handler = handler, schema = own }
      return handler
    end
  end
  return nil
end

--- What is wrong with a table for the plugin: a list of { path =, message =, hint = }.
---@param name string
---@param value table
function plugins.check(name, value)
  return schema.check(loaded[name].schema, value)
end

--- The table that the plugin's phases get: with defaults. One for all exchanges: it is not to be changed.
function plugins.configure(name, value)
  return schema.complete(loaded[name].schema, value)
end

return plugins
