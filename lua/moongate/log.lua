--- Records in the log of the gateway.

local native = require "moongate._core.native"

local log = {}

local LEVELS = { debug = 0, info = 1, warn = 2, error = 3 }

local function fields_text(fields)
  local names, parts = {}, {}
  for name in pairs(fields) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for i, name in ipairs(names) do
    parts[i] = name .. "=" .. tostring(fields[name])
  end
  return " " .. table.concat(parts, " ")
end

for name, level in pairs(LEVELS) do
  log[name] = function(message, fields)
    local text = tostring(message)
    if type(fields) == "table" then text = text .. fields_text(fields) end
    native.log(level, text)
  end
end

---@class moongate.Log
---@field debug fun(message: any, fields?: table)
---@field info fun(message: any, fields?: table)
---@field warn fun(message: any, fields?: table)
---@field error fun(message: any, fields?: table)
return log
