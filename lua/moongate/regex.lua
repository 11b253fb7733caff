--- Regular expressions: PCRE2, compiled to machine code and kept. On bytes, unless the options say "u".
---
--- Options are letters, as of ngx.re: "i" in any case, "m" ^ and $ at lines, "s" . is also a line's end, "x" space and comments
--- in the pattern do not count, "u" UTF-8, "a" at the beginning only; "j" and "o" change nothing.
---
--- A pattern that is wrong, or one that backtracks too much on its subject, gives nil and what is wrong.

local regexes = require "moongate._core.regex"

local regex = {}

local spans = regexes.spans
local LIMIT = "the pattern backtracks too much on this subject"

---@alias moongate.Captures table<integer|string, string|false> [0] is the whole match; false: a group that took no part

-- ---- arguments

local function to_subject(what, subject)
  local kind = type(subject)
  if kind == "number" then return tostring(subject) end
  error(("regex.%s takes a string as the subject, got %s"):format(what, kind), 3)
end

local function to_flags(what, pattern, options)
  if type(pattern) ~= "string" then
    error(("regex.%s takes a string as the pattern, got %s"):format(what, type(pattern)), 3)
  end
  if options == nil then return 0 end
  if type(options) ~= "string" then
    error(("regex.%s takes a string as the options, got %s"):format(what, type(options)), 3)
  end
  local flags, letter = regexes.flags(options)
  if not flags then
    error(('regex.%s: unknown option "%s"; there are i, m, s, x, u, a, j and o'):format(
      what, letter), 3)
  end
  return flags
end

-- ---- one match

--- The groups of the first match; nil where there is none.
---@param subject string
---@param pattern string
---@param options? string
---@return moongate.Captures? captures, string? err
function regex.match(subject, pattern, options)
  if type(subject) ~= "string" then subject = to_subject("match", subject) end
  local entry = regexes.find(pattern, to_flags("match", pattern, options))
  if not entry.regex then return nil, entry.fault end
  local count = regexes.search(entry, subject, 0)
  if count > 0 then return regexes.captures(entry, subject, count) end
  if count == 0 then return nil end
  return nil, LIMIT
end

--- Where the first match is, as string.find says it; nil where there is none.
---@param subject string
---@param pattern string
---@param options? string
---@return integer? from, integer|string? to or what is wrong
function regex.find(subject, pattern, options)
  if type(subject) ~= "string" then subject = to_subject("find", subject) end
  local entry = regexes.find(pattern, to_flags("find", pattern, options))
  if not entry.regex then return nil, entry.fault end
  local count = regexes.search(entry, subject, 0)
  if count > 0 then return spans[0].from + 1, spans[0].to end
  if count == 0 then return nil end
  return nil, LIMIT
end

-- ---- all matches

--- Every match in turn: for captures in regex.gmatch(...) do ... end. It raises where the pattern backtracks too much.
---@param subject string
---@param pattern string
---@param options? string
---@return (fun(): moongate.Captures?)? iterator, string? err the pattern is wrong
function regex.gmatch(subject, pattern, options)
  if type(subject) ~= "string" then subject = to_subject("gmatch", subject) end
  local flags = to_flags("gmatch", pattern, options)
  local from = 0
  local first = regexes.find(pattern, flags)
  if not first.regex then return nil, first.fault end
  return function()
    if not from then return nil end
    local entry = regexes.find(pattern, flags)
    local count = regexes.search(entry, subject, from)
    if count > 0 then
      from = regexes.next()
      return regexes.captures(entry, subject, count)
    end
    from = nil
    if count < 0 then error("regex.gmatch: " .. LIMIT, 2) end
    return nil
  end
end

-- ---- replacing

-- A replacement as a list of texts and of groups (numbers); nil and what is wrong with it.
local function parse_template(text, names)
  local parts, at = {}, 1
  while true do
    local dollar = text:find("$", at, true)
    if not dollar then break end
    if dollar > at then parts[#parts + 1] = text:sub(at, dollar - 1) end
    local group = text:match("^%d+", dollar + 1)
    local name = text:match("^{([%w_]+)}", dollar + 1)
    if group then
      parts[#parts + 1] = tonumber(group)
      at = dollar + 1 + #group
    elseif name then
      local number = tonumber(name) or names[name]
      if not number then return nil, ("replacement: the pattern has no group %s"):format(name) end
      parts[#parts + 1] = number
      at = dollar + 3 + #name
    elseif text:sub(dollar + 1, dollar + 1) == "$" then
      parts[#parts + 1] = "$"
      at = dollar + 2
    else
      return nil, ("replacement: what does $ stand for at byte %d? There are $1, ${name} and $$")
        :format(dollar)
    end
  end
  if at <= #text then parts[#parts + 1] = text:sub(at) end
  return parts
end

local function template_of(entry, text)
  if entry.template_text ~= text then
    local parts, err = parse_template(text, entry.names)
    if not parts then return nil, err end
    entry.template_text, entry.template = text, parts
  end
  return entry.template
end

-- Appends what a template makes of the last match.
local function fill(out, template, subject, count)
  for i = 1, #template do
    local part = template[i]
    if type(part) == "string" then
      out[#out + 1] = part
    elseif part < count then
      out[#out + 1] = regexes.group(subject, part) or ""
    end
  end
end

-- What a function makes of a match, or what was matched.
local function call(fn, captures)
  local text = fn(captures)
  if text == nil or text == false then return captures[0] end
  if type(text) ~= "string" and type(text) ~= "number" then
    error("regex.gsub: the replacement function gave " .. type(text) .. ", not a string", 3)
  end
  return text
end

local function replace_all(subject, pattern, flags, replacement)
  local is_function = type(replacement) == "function"
  local out, from, done, n = {}, 0, 0, 0
  while true do
    local entry = regexes.find(pattern, flags)
    if not entry.regex then return nil, entry.fault end
    local template, err
    if not is_function then
      template, err = template_of(entry, replacement)
      if err then return nil, err end
    end
    local count = regexes.search(entry, subject, from)
    if count < 0 then return nil, LIMIT end
    if count == 0 then break end
    local span = spans[0]
    if span.from > done then out[#out + 1] = subject:sub(done + 1, span.from) end
    from, done, n = regexes.next(), span.to, n + 1
    if template then
      fill(out, template, subject, count)
    else
      out[#out + 1] = call(replacement, regexes.captures(entry, subject, count))
    end
  end
  if n == 0 then return subject, 0 end
  out[#out + 1] = subject:sub(done + 1)
  return table.concat(out), n
end

--- The subject with every match replaced, and how many there were. In a replacement $1 or ${1} is a group, ${name} one with a
--- name, $0 the whole, $$ a dollar. A function gets the captures and gives a text, or nil for what was matched; it may wait.
---@param subject string
---@param pattern string
---@param replacement string|fun(captures: moongate.Captures): string?
---@param options? string
---@return string? text, integer|string count or what is wrong
function regex.gsub(subject, pattern, replacement, options)
  if type(subject) ~= "string" then subject = to_subject("gsub", subject) end
  local flags = to_flags("gsub", pattern, options)
  local kind = type(replacement)
  if kind ~= "string" and kind ~= "function" then
    error("regex.gsub takes a string or a function as the replacement, got " .. kind, 2)
  end
  return replace_all(subject, pattern, flags, replacement)
end

return regex
