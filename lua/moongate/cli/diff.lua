--- What two configurations differ by: objects by kind and name, then their key paths (for moongate check --diff).

local diff = {}

-- The key of a route without a name: its first match, as it was written.
local function route_key(route)
  local match = type(route.matches) == "table" and route.matches[1] or route
  local hosts = match.hosts or route.hosts
  local path = match.path
  if type(path) == "table" then
    path = path.exact and "=" .. path.exact or path.regex and "~" .. path.regex
  end
  local parts = {}
  if type(match.methods) == "table" then
    parts[1] = table.concat(match.methods, ",")
  end
  parts[#parts + 1] = (type(hosts) == "table" and table.concat(hosts, ",") or "") .. (path or "")
  return table.concat(parts, " ")
end

local function key_of(object)
  local value = object.value
  if value.name then
    return value.name
  elseif object.kind == "listener" then
    return ("%s:%s"):format(value.address or "0.0.0.0", value.port)
  elseif object.kind == "route" then
    return route_key(value)
  end
  return ""
end

-- Objects by kind and key, and the same in order; several of one key are told apart by their number.
local function index(objects)
  local by_id, list = {}, {}
  for _, object in ipairs(objects) do
    local name = key_of(object)
    local id, count = object.kind .. "\0" .. name, 1
    while by_id[id] do
      count = count + 1
      id = ("%s\0%s (%d)"):format(object.kind, name, count)
    end
    local item = {
      id = id, kind = object.kind, name = count > 1 and ("%s (%d)"):format(name, count) or name,
      line = object.place.line, value = object.value,
    }
    by_id[id], list[#list + 1] = item, item
  end
  return by_id, list
end

local function is_before(a, b)
  if type(a) == type(b) then
    return a < b
  end
  return type(a) == "number"
end

local function keys_of(old, new)
  local seen, keys = {}, {}
  for _, value in ipairs { old, new } do
    for key in pairs(value) do
      if not seen[key] then
        seen[key], keys[#keys + 1] = true, key
      end
    end
  end
  table.sort(keys, is_before)
  return keys
end

-- A list part beside names has its numbers as texts.
local function path_to(path, key)
  if tostring(key):find "^%d+$" then
    return ("%s[%s]"):format(path, key)
  end
  return path == "" and key or path .. "." .. key
end

local function compare(old, new, path, out)
  if type(old) ~= "table" or type(new) ~= "table" then
    if old ~= new then
      out[#out + 1] = { path = path, old = old, new = new }
    end
    return out
  end
  for _, key in ipairs(keys_of(old, new)) do
    compare(old[key], new[key], path_to(path, key), out)
  end
  return out
end

-- Of what both have, in the order of `list`.
local function order_of(list, other)
  local ids = {}
  for _, item in ipairs(list) do
    if item.kind == "route" and other[item.id] then
      ids[#ids + 1] = item.id
    end
  end
  return table.concat(ids, "\1")
end

local function title(item)
  return { kind = item.kind, name = item.name, line = item.line }
end

--- What must happen to the objects `old` to become `new`; both as /config lists them.
---@param old table[]
---@param new table[]
---@return table { added = { { kind, name, line } }, removed =, changed = { { kind, name, line, keys = { { path, old, new } } } },
---  reordered = whether the routes that both have are in another order }
---@return boolean is_same
function diff.of(old, new)
  local old_by_id, old_list = index(old)
  local new_by_id, new_list = index(new)
  local out = { added = {}, removed = {}, changed = {}, reordered = false }
  for _, item in ipairs(new_list) do
    local before = old_by_id[item.id]
    local keys = before and compare(before.value, item.value, "", {})
    if not before then
      out.added[#out.added + 1] = title(item)
    elseif #keys > 0 then
      local changed = title(item)
      changed.keys = keys
      out.changed[#out.changed + 1] = changed
    end
  end
  for _, item in ipairs(old_list) do
    if not new_by_id[item.id] then
      out.removed[#out.removed + 1] = title(item)
    end
  end
  out.reordered = order_of(old_list, new_by_id) ~= order_of(new_list, old_by_id)
  return out, #out.added + #out.removed + #out.changed == 0 and not out.reordered
end

return diff
