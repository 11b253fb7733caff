--- Options of a command: --name VALUE, --name=VALUE, --flag; `--` ends them; the rest are positional.

local options = {}

---@class moongate.cli.Option
---@field value? "text"|"count"|"seconds" what it takes; nil: a flag
---@field max? integer of a count; default 1024
---@field repeats? boolean may be given several times; parsed as a list

--- The name nearest to `found`, by edit distance, or nil when none is near.
---@param found string
---@param names string[]
---@return string?
function options.nearest(found, names)
  local nearest, least = nil, math.floor((#found + 2) / 3) + 1
  for _, name in ipairs(names) do
    local row = {}
    for k = 0, #name do row[k] = k end
    for i = 1, #found do
      local diagonal = row[0]
      row[0] = i
      for k = 1, #name do
        local above = row[k]
        local cost = found:byte(i) == name:byte(k) and 0 or 1
        row[k] = math.min(above + 1, row[k - 1] + 1, diagonal + cost)
        diagonal = above
      end
    end
    if row[#name] < least then
      nearest, least = name, row[#name]
    end
  end
  return nearest
end

local function unknown(name, known)
  local names = {}
  for option in pairs(known) do names[#names + 1] = "--" .. option end
  table.sort(names)
  local near = options.nearest("--" .. name, names)
  return ("unknown option --%s%s"):format(name, near and ("; did you mean %s?"):format(near) or "")
end

local function read_value(option, name, text)
  if text == nil then
    return nil, ("--%s needs a value"):format(name)
  end
  if option.value == "count" then
    local count, max = tonumber(text), option.max or 1024
    if not count or count < 1 or count > max or count ~= math.floor(count) then
      return nil, ("--%s: found %q; expected a whole number, 1 to %d"):format(name, text, max)
    end
    return count
  elseif option.value == "seconds" then
    local seconds = tonumber(text)
    if not seconds or not (seconds >= 0.1 and seconds <= 3600) then
      return nil, ("--%s: found %q; expected seconds, 0.1 to 3600"):format(name, text)
    end
    return seconds
  end
  return text
end

---@param arguments string[]
---@param known table<string, moongate.cli.Option>
---@return table? parsed options by name, positional arguments by number
---@return string? err
function options.parse(arguments, known)
  local parsed, i = {}, 1
  while i <= #arguments do
    local argument = arguments[i]
    local name, inline = argument:match("^%-%-([%w-]+)=?(.*)$")
    if argument == "--" then
      for k = i + 1, #arguments do parsed[#parsed + 1] = arguments[k] end
      break
    elseif not name then
      if argument:sub(1, 1) == "-" and #argument > 1 then
        return nil, ("unknown option %s"):format(argument)
      end
      parsed[#parsed + 1] = argument
    elseif not known[name] then
      return nil, unknown(name, known)
    elseif not known[name].value then
      if argument:find("=", 1, true) then return nil, ("--%s takes no value"):format(name) end
      parsed[name] = true
    else
      if not argument:find("=", 1, true) then
        i = i + 1
        inline = arguments[i]
      end
      local value, err = read_value(known[name], name, inline)
      if not value then
        return nil, err
      end
      if known[name].repeats then
        parsed[name] = parsed[name] or {}
        table.insert(parsed[name], value)
      elseif parsed[name] ~= nil then
        return nil, ("--%s is given twice"):format(name)
      else
        parsed[name] = value
      end
    end
    i = i + 1
  end
  return parsed
end

return options
