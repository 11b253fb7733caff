--- Schemas of plugins in Lua: what a plugin's table may hold.
---
---   return {
---     key = { type = "string", required = true },
---     limit = { type = "integer", default = 10, min = 1, max = 1000 },
---     mode = { type = "string", one_of = { "on", "off" }, default = "on" },
---     hosts = { type = "list", items = { type = "string" } },
---     limits = { type = "table", fields = { ... } },
---     labels = { type = "map", values = { type = "string" } },
---   }

local native = require "moongate._core.native"

local schema = {}

local check_value

local function add(problems, path, hint, format, ...)
  problems[#problems + 1] = { path = path, message = format:format(...), hint = hint }
end

local function join(path, key)
  return path == "" and key or path .. "." .. key
end

local function describe(value)
  if type(value) == "string" then return ('"%s"'):format(value) end
  if type(value) == "table" then return "a table" end
  return tostring(value)
end

local function check_fields(problems, path, fields, value)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for key in pairs(value) do
    if not fields[key] then
      local nearest = native.nearest(tostring(key), names)
      add(problems, join(path, tostring(key)), nearest and ('did you mean "%s"?'):format(nearest)
        or "known are: " .. table.concat(names, ", "), "unknown key")
    end
  end
  for _, name in ipairs(names) do
    local field = fields[name]
    if value[name] ~= nil then
      check_value(problems, join(path, name), field, value[name])
    elseif field.required then
      add(problems, join(path, name), nil, "missing")
    end
  end
end

local function check_list(problems, path, field, value)
  local count = 0
  for key in pairs(value) do
    count = count + 1
    if type(key) ~= "number" then
      return add(problems, path, nil, "expected a list, found a table with keys")
    end
  end
  for i = 1, count do
    if field.items then
      check_value(problems, ("%s[%d]"):format(path, i), field.items, value[i])
    end
  end
end

local function check_map(problems, path, field, value)
  for key, item in pairs(value) do
    if type(key) ~= "string" then
      add(problems, path, nil, "expected names, found a list")
    elseif field.values then
      check_value(problems, join(path, key), field.values, item)
    end
  end
end

local function check_number(problems, path, field, value)
  if field.type == "integer" and value ~= math.floor(value) then
    add(problems, path, "expected a whole number", "found %s", tostring(value))
  elseif field.min and value < field.min or field.max and value > field.max then
    add(problems, path, ("expected %s to %s"):format(field.min or "any", field.max or "any"),
      "found %s", tostring(value))
  end
end

local function check_string(problems, path, field, value)
  if not field.one_of then return end
  for _, choice in ipairs(field.one_of) do
    if choice == value then return end
  end
  local nearest = native.nearest(value, field.one_of)
  add(problems, path, nearest and ('did you mean "%s"?'):format(nearest)
    or "expected one of " .. table.concat(field.one_of, ", "), 'found "%s"', value)
end

local KINDS = {
  string = "string", number = "number", integer = "number", boolean = "boolean",
  list = "table", map = "table", table = "table",
}

function check_value(problems, path, field, value)
  local kind = KINDS[field.type]
  if not kind then error(('schema.lua: %s has no type of schemas: "%s"'):format(path,
    tostring(field.type)), 0) end
  if type(value) ~= kind then
    return add(problems, path, "expected " .. (field.expected or field.type), "found %s",
      describe(value))
  end
  if kind == "number" then
    check_number(problems, path, field, value)
  elseif kind == "string" then
    check_string(problems, path, field, value)
  elseif field.type == "list" then
    check_list(problems, path, field, value)
  elseif field.type == "map" then
    check_map(problems, path, field, value)
  elseif field.type == "table" and field.fields then
    check_fields(problems, path, field.fields, value)
  end
end

--- All problems of a table.
function schema.check(fields, value)
  local problems = {}
  check_fields(problems, "", fields, value)
  return problems
end

--- The table with defaults for what is absent; changed in place.
function schema.complete(fields, value)
  for name, field in pairs(fields) do
    if value[name] == nil then value[name] = field.default end
    if field.fields and type(value[name]) == "table" then
      schema.complete(field.fields, value[name])
    end
  end
  return value
end

return schema
