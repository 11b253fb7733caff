-- Child processes, pinned to a core. Each is told to die with this process, so that nothing outlives a run however it ends.
local ffi = require "ffi"

ffi.cdef [[
int fork(void);
int execvp(const char *file, char *const argv[]);
int prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, unsigned long arg5);
int kill(int pid, int sig);
int waitpid(int pid, int *status, int options);
int open(const char *path, int flags, ...);
int dup2(int from, int to);
void _exit(int code);
int usleep(unsigned int us);
int socket(int domain, int type, int protocol);
int close(int fd);
struct bench_address { uint16_t family; uint16_t port; uint32_t ip; char zero[8]; };
int bind(int fd, const struct bench_address *at, uint32_t len);
int getsockname(int fd, struct bench_address *at, uint32_t *len);
int connect(int fd, const struct bench_address *at, uint32_t len);
ssize_t send(int fd, const void *bytes, size_t len, int flags);
ssize_t recv(int fd, void *bytes, size_t len, int flags);
struct bench_time { long s, ns; };
int clock_gettime(int clock, struct bench_time *at);
]]
local C = ffi.C

local PR_SET_PDEATHSIG, SIGTERM, SIGKILL, WNOHANG = 1, 15, 9, 1
local O_CREATE_TRUNC, MODE = 0x1 + 0x40 + 0x200, 0x1A4
local AF_INET, SOCK_STREAM, MSG_NOSIGNAL, CLOCK_MONOTONIC, EINTR = 2, 1, 0x4000, 1, 4

local process = {}

local function argv_of(arguments)
  local argv = ffi.new("char *[?]", #arguments + 1)
  for i, argument in ipairs(arguments) do argv[i - 1] = ffi.cast("char *", argument) end
  return argv
end

--- Starts `arguments` on a core; its output goes to the file `out`.
---@param arguments string[]
---@param core integer
---@param out string
---@return integer pid
function process.start(arguments, core, out)
  local all = { "taskset", "-c", tostring(core) }
  for _, argument in ipairs(arguments) do all[#all + 1] = tostring(argument) end
  local argv = argv_of(all)
  local pid = C.fork()
  if pid ~= 0 then return pid end
  C.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
  local fd = C.open(out, O_CREATE_TRUNC, ffi.cast("int", MODE))
  C.dup2(fd, 1)
  C.dup2(fd, 2)
  C.execvp(argv[0], argv)
  C._exit(127)
end

--- Waits for a process to end.
---@param pid integer
---@return integer status as waitpid gives it: 0 is fine, 9 is SIGKILL, 256 is exit(1)
function process.wait(pid)
  local status = ffi.new "int[1]"
  repeat local ended = C.waitpid(pid, status, 0) until ended == pid or ffi.errno() ~= EINTR
  return status[0]
end

--- Asks a process to end, and makes it.
---@param pid integer
function process.stop(pid)
  C.kill(pid, SIGTERM)
  for _ = 1, 200 do
    if C.waitpid(pid, nil, WNOHANG) ~= 0 then return end
    C.usleep(10000)
  end
  C.kill(pid, SIGKILL)
  C.waitpid(pid, nil, 0)
end

--- Whether a child still runs; one that has ended is waited for.
---@param pid integer
---@return boolean
function process.is_alive(pid)
  return C.waitpid(pid, nil, WNOHANG) == 0
end

---@param pid integer
---@param number integer
function process.signal(pid, number)
  C.kill(pid, number)
end

--- Nanoseconds of the clock that the load generator reads, too.
---@return number
function process.now_ns()
  local at = ffi.new "struct bench_time"
  C.clock_gettime(CLOCK_MONOTONIC, at)
  return tonumber(at.s) * 1e9 + tonumber(at.ns)
end

--- CPU time of all threads of a process so far.
---@param pid integer
---@return number ns
function process.cpu_ns(pid)
  local pipe = assert(io.popen(("cat /proc/%d/task/*/schedstat"):format(pid)))
  local sum = 0
  for line in pipe:lines() do sum = sum + tonumber(line:match "^%d+") end
  pipe:close()
  return sum
end

--- Bytes of a process: resident, its share of what it shares, and what is its own without files.
---@param pid integer
---@return { rss: integer, pss: integer, anonymous: integer }
function process.memory(pid)
  local file = assert(io.open(("/proc/%d/smaps_rollup"):format(pid)))
  local text = file:read "*a"
  file:close()
  local function bytes(name) return tonumber(text:match("\n" .. name .. ":%s+(%d+)")) * 1024 end
  return { rss = bytes "Rss", pss = bytes "Pss", anonymous = bytes "Anonymous" }
end

--- One request to 127.0.0.1; blocks.
---@param port integer
---@param method string
---@param path string
---@return integer|nil status
---@return string body
function process.ask(port, method, path)
  local at, fd = ffi.new "struct bench_address", C.socket(AF_INET, SOCK_STREAM, 0)
  at.family, at.ip, at.port = AF_INET, 0x0100007f, math.floor(port / 256) + port % 256 * 256
  local request = ("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):format(method, path)
  local parts, buffer = {}, ffi.new("char[?]", 65536)
  if C.connect(fd, at, 16) == 0 then C.send(fd, request, #request, MSG_NOSIGNAL) end
  while true do
    local n = tonumber(C.recv(fd, buffer, 65536, 0))
    if n <= 0 then break end
    parts[#parts + 1] = ffi.string(buffer, n)
  end
  C.close(fd)
  local head, body = table.concat(parts):match "^(.-\r\n)\r\n(.*)$"
  return tonumber(head and head:match "^HTTP/1.1 (%d+)"), body or ""
end

---@param seconds number
function process.sleep(seconds)
  C.usleep(seconds * 1e6)
end

--- A port of 127.0.0.1 that nobody listens on.
---@return integer
function process.free_port()
  local at, len = ffi.new "struct bench_address", ffi.new("uint32_t[1]", 16)
  at.family, at.ip = AF_INET, 0x0100007f -- 127.0.0.1 in network order on a little-endian machine
  local fd = C.socket(AF_INET, SOCK_STREAM, 0)
  C.bind(fd, at, 16)
  C.getsockname(fd, at, len)
  C.close(fd)
  return math.floor(at.port / 256) + at.port % 256 * 256
end

---@param program string
---@return boolean
function process.has(program)
  return os.execute(("PATH=$PATH:/usr/sbin command -v '%s' >/dev/null 2>&1"):format(program)) == 0
end

return process
