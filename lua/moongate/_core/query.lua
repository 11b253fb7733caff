--- Query strings: decoding and encoding of application/x-www-form-urlencoded (WHATWG URL, 5.1 and 5.2).

local query = {}

local function decode(text)
  text = text:gsub("+", " ")
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function encode(text)
  return (text:gsub("[^%w%-%._~]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

--- "a=1&b=2&a=3" -> { a = { "1", "3" }, b = "2" }. At most 100 parameters are looked at.
---@param text string
---@return table<string, string|string[]>
function query.decode(text)
  local args, count = {}, 0
  for pair in text:gmatch "[^&]+" do
    count = count + 1
    if count > 100 then break end
    local name, value = pair:match "^([^=]*)=?(.*)$"
    name, value = decode(name), decode(value)
    local before = args[name]
    if before == nil then
      args[name] = value
    elseif type(before) == "table" then
      before[#before + 1] = value
    else
      args[name] = { before, value }
    end
  end
  return args
end

--- The other way round, names in order; true stands for a name without a value.
---@param args table<string, string|number|boolean|string[]>
---@return string
function query.encode(args)
  local names, pairs_ = {}, {}
  for name in pairs(args) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for _, name in ipairs(names) do
    local values = args[name]
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      pairs_[#pairs_ + 1] = value == true and encode(name)
        or encode(name) .. "=" .. encode(tostring(value))
    end
  end
  return table.concat(pairs_, "&")
end

return query
