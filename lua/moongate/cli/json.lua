--- A JSON writer for what programs read off the command line: texts, numbers, booleans, lists, records.

local function escape(char)
  return ("\\u%04x"):format(char:byte())
end

-- Whether bytes over 127 are text and may stay.
local function is_utf8(text)
  local rest = text:gsub("[\194-\223][\128-\191]", " ")
    :gsub("[\224-\239][\128-\191][\128-\191]", " ")
    :gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", " ")
  return not rest:find "[\128-\255]"
end

local function encode(value)
  if type(value) == "string" then
    local odd = is_utf8(value) and '[%c"\\]' or '[%c"\\\127-\255]'
    return '"' .. value:gsub(odd, escape) .. '"'
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
