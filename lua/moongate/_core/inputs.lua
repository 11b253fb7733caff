--- The world as a configuration script sees it: files, environment, time and chance are recorded by the first evaluation and
--- given again to those of the workers, so that all of them see the same. What a script must not do is refused with a reason.

local coroutines = require "moongate._core.coroutines"
local finalizers = require "moongate._core.finalizers"
local native = require "moongate._core.native"

local inputs = {}

local real = {
  date = os.date, time = os.time, clock = os.clock, getenv = os.getenv,
  random = math.random, randomseed = math.randomseed,
  open = io.open, lines = io.lines, loadfile = loadfile, dofile = dofile,
}
inputs.real = real

local function refuse(name, hint)
  return function()
    error(name .. " cannot be used in a script of the gateway" .. (hint or ""), 2)
  end
end

-- ---- files

local File = {}
File.__index = File

local function read_line(self, keep)
  if self.at > #self.text then return nil end
  local stop = self.text:find("\n", self.at, true) or #self.text + 1
  local line = self.text:sub(self.at, keep and stop or stop - 1)
  self.at = stop + 1
  return line
end

local function read_one(self, format)
  if type(format) == "number" then
    if self.at > #self.text and format > 0 then return nil end
    local piece = self.text:sub(self.at, self.at + format - 1)
    self.at = self.at + #piece
    return piece
  end
  local letter = tostring(format):match "^%*?(%a)"
  if letter == "a" then
    local rest = self.text:sub(self.at)
    self.at = #self.text + 1
    return rest
  elseif letter == "l" or letter == "L" then
    return read_line(self, letter == "L")
  elseif letter == "n" then
    local start, stop = self.text:find("^%s*[%+%-]?[%w%.]+", self.at)
    local number = start and tonumber(self.text:sub(start, stop))
    if number then self.at = stop + 1 end
    return number
  end
  error("bad argument to 'read' (invalid format)", 3)
end

function File:read(...)
  if select("#", ...) == 0 then return read_line(self) end
  local results = {}
  for i = 1, select("#", ...) do
    results[i] = read_one(self, (select(i, ...)))
  end
  return unpack(results, 1, select("#", ...))
end

function File:lines()
  return function() return read_line(self) end
end

function File:seek(whence, offset)
  local from = ({ set = 0, cur = self.at - 1, ["end"] = #self.text })[whence or "cur"]
  self.at = from + (offset or 0) + 1
  return self.at - 1
end

function File:close()
  return true
end

local function open(path, mode)
  if mode and mode:find "[wa+]" then
    return nil, path .. ": a script cannot write files while it is evaluated"
  end
  local text, err = native.file(path)
  if not text then return nil, path .. ": " .. err end
  return setmetatable({ text = text, at = 1 }, File)
end

local function lines(path)
  local file, err = open(path)
  if not file then error(err, 2) end
  return file:lines()
end

local function load_recorded(path, mode, env)
  local text, err = native.file(path)
  if not text then return nil, "cannot open " .. path .. ": " .. err end
  local chunk, why = loadstring(text:gsub("^#[^\n]*", "", 1), "@" .. path)
  if chunk and env then setfenv(chunk, env) end
  return chunk, why
end

local function do_recorded(path)
  return assert(load_recorded(path))()
end

-- package.loaders[3]: Lua files along package.path.
local function search(name)
  local tried = {}
  for template in package.path:gmatch "[^;]+" do
    local path = template:gsub("%?", (name:gsub("%.", "/")))
    local text = native.file(path, true)
    if text then
      local chunk, err = loadstring(text, "@" .. path)
      if not chunk then error(err, 0) end
      return chunk
    end
    tried[#tried + 1] = "\n\tno file '" .. path .. "'"
  end
  return table.concat(tried)
end

-- ---- the world around a script

-- luacheck: push ignore 121 122

-- What the functions below go by. A script may keep any of them from its top level on (local time = os.time): what it keeps
-- changes with the world.
local is_seeded = false
local world = {
  getenv = function(name) return (native.env(name)) end,
  now = native.time,
  clock = function() return 0 end,
  random = function(...)
    if not is_seeded then
      is_seeded = true
      real.randomseed(native.seed())
    end
    return real.random(...)
  end,
  open = open, lines = lines, loadfile = load_recorded, dofile = do_recorded,
}

--- Before the script.
function inputs.begin()
  os.getenv = function(name) return world.getenv(name) end
  os.time = function(date)
    if date then return real.time(date) end
    return math.floor(world.now())
  end
  os.date = function(format, time) return real.date(format, time or world.now()) end
  os.clock = function() return world.clock() end
  math.randomseed = function(seed)
    is_seeded = true
    real.randomseed(seed)
  end
  math.random = function(...) return world.random(...) end
  io.open = function(...) return world.open(...) end
  io.lines = function(...) return world.lines(...) end
  loadfile = function(...) return world.loadfile(...) end
  dofile = function(...) return world.dofile(...) end
  package.loaders[3] = search
  coroutines.install() -- modules keep coroutine.resume in locals
  os.exit = refuse "os.exit"
  os.execute = refuse "os.execute"
  os.remove, os.rename, os.tmpname = refuse "os.remove", refuse "os.rename", refuse "os.tmpname"
  io.popen = refuse "io.popen"
  finalizers.install()
end

--- After it, where workers go on: time is the loop's.
function inputs.settle(abi, vm)
  world = {
    getenv = real.getenv, open = real.open, lines = real.lines, random = real.random,
    loadfile = real.loadfile, dofile = real.dofile,
    now = function() return abi.moon_abi_now(vm) end,
    clock = function() return abi.moon_abi_clock(vm) end,
  }
  -- Those that are looked up anew cost nothing more.
  math.random, math.randomseed, os.getenv = real.random, real.randomseed, real.getenv
end

-- luacheck: pop

return inputs
