--- A JSON writer for what programs read off the command line: texts, numbers, booleans, lists, records.

local function escape(char)
  return ("\\u%04x"):format(char:byte())
end

local function encode(value)
  if type(value) == "string" then
    return '"' .. value:gsub('[%c"\\\127-\255]', escape) .. '"'
  elseif type(value) ~= "table" then
    return tostring(value)
  elseif #value > 0 or next(value) == nil then
    local items = {}
    for i, item in ipairs(value) do items[i] = encode(item) end
    return "[" .. table.concat(items, ",") .. "]"
  end
  local names, members = {}, {}
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do members[i] = encode(name) .. ":" .. encode(value[name]) end
  return "{" .. table.concat(members, ",") .. "}"
end

return { encode = encode }
