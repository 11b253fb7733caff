-- The rooms of core/: who may include whom, and who may see which library (luajit test/lint/rooms.lua [ROOT]).
-- A file includes headers of its own room and of rooms of strictly lower rank.
package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local tree = require "tree"
local root = arg[1] or "."

local RANK = {
  base = 0, conf = 1, obs = 1, http = 2, io = 2, filter = 3, route = 3, link = 4, upstream = 5,
  exchange = 6, edge = 7, script = 7, admin = 7, gateway = 8, ["main.c"] = 9,
}

-- Headers of one room or file: pattern -> where it may be included.
local ONLY = {
  { "^lua%.h$", "script" }, { "^lauxlib%.h$", "script" }, { "^lualib%.h$", "script" },
  { "^luajit%.h$", "script" }, { "^nghttp2/", "http" }, { "^uv%.h$", "io" },
  { "^uv/", "io" }, { "^openssl/", "io" }, { "^ares", "io" }, { "^sys/epoll%.h$", "io" },
  { "^sys/socket%.h$", "io" }, { "^sys/un%.h$", "io" }, { "^netinet/tcp%.h$", "io" },
  { "^netdb%.h$", "io" }, { "^poll%.h$", "io" }, { "^sys/random%.h$", "io" },
  { "^sys/time%.h$", "io" }, { "^pcre2%.h$", "base/regex.c" }, { "^zlib%.h$", "filter" },
  { "^brotli/", "filter" }, { "^zstd%.h$", "filter" },
}

-- Functions of the outside world: io/ alone calls them.
local WORLD = {}
for name in ([[clock_gettime clock_nanosleep gettimeofday time clock nanosleep usleep sleep
  rand srand rand_r random srandom drand48 getrandom getentropy arc4random
  socket accept4 epoll_create1 epoll_ctl epoll_wait getaddrinfo fopen]]):gmatch "%S+" do
  WORLD[name] = true
end

-- base/ stands on libc alone.
local LIBC = {}
for name in ([[arpa/inet.h assert.h ctype.h endian.h errno.h inttypes.h limits.h netinet/in.h stdalign.h
  stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h string.h strings.h
  sys/mman.h sys/types.h sys/uio.h unistd.h sanitizer/asan_interface.h pcre2.h emmintrin.h immintrin.h
  tmmintrin.h nmmintrin.h]]):gmatch "%S+" do
  LIBC[name] = true
end

-- But for the shared dictionaries, which all workers use at once: what is locked there is base's own memory. The rest of base has no
-- threads; who calls it locks.
local LOCKS = { ["base/dict_priv.h"] = true, ["base/dicts.c"] = true }

local problems = {}

local function problem(path, line, text)
  problems[#problems + 1] = ("%s:%d: %s"):format(path, line, text)
end

local function room_of(path)
  return path:match "^core/([^/]+)"
end

local function check_own(path, line, header)
  local from, to = room_of(path), header:match "^([^/]+)/"
  if not to or not RANK[to] then
    problem(path, line, ('"%s": own headers are named from their room, "room/file.h"'):format(header))
  elseif from ~= to and RANK[to] >= RANK[from] then
    problem(path, line, ("%s (rank %d) includes %s (rank %d)"):format(from, RANK[from], header, RANK[to]))
  end
end

local function check_foreign(path, line, header)
  local room, file = room_of(path), path:match "^core/(.*)"
  for _, rule in ipairs(ONLY) do
    if header:find(rule[1]) and rule[2] ~= room and rule[2] ~= file then
      problem(path, line, ("<%s> belongs to %s alone"):format(header, rule[2]))
      return
    end
  end
  if room == "base" and not LIBC[header] and not (header == "pthread.h" and LOCKS[file]) then
    problem(path, line, ("<%s>: base stands on libc alone"):format(header))
  end
end

-- Includes are read from the raw line (their quotes are blanked in the code), but only where the code has one.
local function check_file(path)
  local text = tree.read(root .. "/" .. path)
  local raw, code = tree.lines(text), tree.lines(tree.code(text))
  for i, line in ipairs(code) do
    if line:find "^%s*#%s*include" then
      local own, foreign = raw[i]:match 'include%s+"([^"]+)"', raw[i]:match "include%s+<([^>]+)>"
      if own then check_own(path, i, own) end
      if foreign then check_foreign(path, i, foreign) end
    elseif room_of(path) ~= "io" then
      for before, name in (" " .. line):gmatch "([^%w_])([%a_][%w_]*)%s*%(" do
        if WORLD[name] and before ~= "." and before ~= ">" then
          problem(path, i, ("%s(): the world is io's alone"):format(name))
        end
      end
    end
  end
end

for _, path in ipairs(tree.files(root, "core", ".c", ".h")) do
  if RANK[room_of(path)] then
    check_file(path)
  else
    problem(path, 1, "no such room: " .. room_of(path))
  end
end
tree.finish(problems)
