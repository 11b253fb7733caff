-- Writes what editors know of the public Lua (stubs of the Lua language server) from its annotations:
--
--   luajit cmake/stubs.lua lua/moongate lua/moongate/_meta
--
-- One file of _meta for each source: its classes and aliases as they stand, its functions without bodies. Sources are every noun
-- (lua/moongate/*.lua) and the private files whose classes scripts get to see. A source is read by lines: a block of --- comments
-- and the line of code behind it. What is behind `--`, or has no comment, is nobody's business.
local from, to = assert(arg[1], "usage: stubs.lua LUA_DIR META_DIR"), assert(arg[2])

-- Private files, and what their tables are called for a script.
local PRIVATE = {
  ["_core/dict.lua"] = {},
  ["_core/exchange.lua"] = {},
  ["_core/message.lua"] = {},
  ["_core/connection.lua"] = {},
  ["_core/proxy.lua"] = {},
  ["_core/task.lua"] = { task = "moongate" },
}

local function read_lines(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  return lines
end

local function names_in(dir)
  local names = {}
  local pipe = assert(io.popen(("cd '%s' && LC_ALL=C ls -- *.lua"):format(dir)))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

-- ---- one source

local function class_of(comments)
  for _, line in ipairs(comments) do
    local class = line:match "^%-%-%-@class%s+([%w_.]+)"
    if class then return class end
  end
end

local function has_tag(comments, tag)
  for _, line in ipairs(comments) do
    if line:find("^%-%-%-@" .. tag) then return true end
  end
end

-- The arguments of a function whose head may take several lines.
local function head_of(lines, i)
  local text = lines[i]
  while not text:find "%)" and lines[i + 1] do
    i = i + 1
    text = text .. " " .. lines[i]:match "^%s*(.*)"
  end
  return text
end

-- What a line of code, with the comments above it, becomes; nil: nothing of it is public.
local function stub_of(source, comments, code, lines, i)
  local head = head_of(lines, i)
  local name, separator, method, args = head:match "^function ([%a_]+)([.:])([%w_]+)(%b())"
  if name and source.tables[name] and #comments > 0 then
    return ("function %s%s%s%s end"):format(source.tables[name], separator, method, args)
  end
  name, args = head:match "^local function ([%w_]+)(%b())"
  if name and name == source.returns and #comments > 0 then
    return ("function moongate.%s%s end"):format(name, args)
  end
  name = code:match "^local ([%a_]+) = {}$"
  if name and class_of(comments) then
    source.tables[name] = source.tables[name] or name
    return ("local %s = {}"):format(source.tables[name])
  end
  name, method = code:match "^([%a_]+)%.([%w_]+) = "
  if name and source.tables[name] and has_tag(comments, "type") then
    return ("%s.%s = nil"):format(source.tables[name], method)
  end
  -- Classes and aliases stand for themselves.
  if class_of(comments) or has_tag(comments, "alias") then return "" end
end

local function parse(path, tables)
  local lines = read_lines(path)
  local source = { tables = tables, blocks = {}, classes = {} }
  source.returns = lines[#lines]:match "^return ([%a_]+)$"
  local comments = {}
  for i = 1, #lines do
    local line = lines[i]
    if line:find "^%-%-%-" then
      comments[#comments + 1] = line
    else
      source.header = source.header or comments
      local stub = stub_of(source, comments, line, lines, i)
      if stub then
        local class = class_of(comments)
        if class then source.classes[class] = true end
        if stub ~= "" then comments[#comments + 1] = stub end
        source.blocks[#source.blocks + 1] = table.concat(comments, "\n")
      end
      comments = {}
    end
  end
  return source
end

-- ---- nouns

local function class_name(noun)
  return "moongate." .. noun:sub(1, 1):upper() .. noun:sub(2)
end

-- A noun: moongate.NOUN is a function, or a table of a class, which is declared where the source does not.
local function parse_noun(name)
  local noun = name:match "^(.*)%.lua$"
  if noun == "init" then return parse(from .. "/" .. name, { moongate = "moongate" }) end
  local source = parse(from .. "/" .. name, { [noun] = noun })
  local all = "\n" .. table.concat(source.blocks, "\n")
  if source.returns ~= noun or all:find("\nfunction moongate.", 1, true) then return source end
  source.class = class_name(noun)
  local has_functions = all:find("\nfunction " .. noun .. "[.:]") ~= nil
  local is_declared = all:find("\nlocal " .. noun .. " = {}", 1, true) ~= nil
  if not is_declared and (has_functions or not source.classes[source.class]) then
    table.insert(source.blocks, 1, ("---@class %s\nlocal %s = {}"):format(source.class, noun))
  end
  return source
end

-- The first sentence of what a file says it is.
local function summary(source)
  local lines = {}
  for i, line in ipairs(source.header) do lines[i] = line:match "^%-%-%-%s*(.*)" end
  local text = table.concat(lines, " ")
  return text:match "^(.-)%.%s" or text:match "^(.-)%.?$"
end

-- The fields of the module itself: the nouns.
local function add_fields(blocks, fields)
  for i, block in ipairs(blocks) do
    local head, rest = block:match "^(.*%-%-%-@class moongate\n)(.*)$"
    if head then
      blocks[i] = head .. table.concat(fields) .. rest
      return
    end
  end
end

-- ---- writing

local function write(name, source, module)
  if #source.blocks == 0 then return end
  local file = assert(io.open(to .. "/" .. name, "wb"))
  file:write("---@meta", module and " " .. module or "",
    "\n-- Generated by cmake/stubs.lua from lua/moongate. Do not edit.\n\n",
    table.concat(source.blocks, "\n\n"), "\n", module and "\nreturn moongate\n" or "")
  assert(file:close())
end

-- A file with functions of the module itself has the module's table.
local function add_module(source)
  if ("\n" .. table.concat(source.blocks, "\n")):find("\nfunction moongate.", 1, true) then
    table.insert(source.blocks, 1, "---@class moongate\nlocal moongate = {}")
  end
end

local fields, init = {}, nil
for _, name in ipairs(names_in(from)) do
  local source = parse_noun(name)
  if source.class then
    local noun = name:match "^(.*)%.lua$"
    fields[#fields + 1] = ("---@field %s %s %s\n"):format(noun, source.class, summary(source))
  end
  if name == "init.lua" then
    init = source
  else
    add_module(source)
    write(name, source)
  end
end
add_fields(assert(init, from .. " has no init.lua").blocks, fields)
write("moongate.lua", init, "moongate")

for path, tables in pairs(PRIVATE) do
  if read_lines(from .. "/" .. path) then
    local source = parse(from .. "/" .. path, tables)
    add_module(source)
    write(path:match "[^/]+$", source)
  end
end
