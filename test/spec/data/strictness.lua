-- Requests that are wrong, odd or just at a limit (the classes A01-A27 and A60 of HTTP request smuggling and framing attacks),
-- as data. test/spec/strictness_spec.lua sends each to a gateway with a recording backend behind it.
--
-- A case: { id, name, send, status, close, backend }
--   send     raw bytes, or a list of pieces that are sent one by one
--   status   of the first response, or a list of acceptable ones (where the documents leave a choice)
--   statuses of all responses, when there are several (status is then the first)
--   close    the gateway must close the connection after the (last) response; false: it must stay usable
--   method   of the request, when the response's framing depends on it
--   backend  list of the requests that reach the backend, each { head = exact bytes, body = exact bytes after de-chunking,
--            trailers = exact lines }; nil: not one byte may reach it
--   partial  { head, body }: at the most this much of one request may reach the backend, its body never complete, and its
--            connection must be closed
--   half_close  the client ends its side after sending
-- "@XF@" in a head stands for the three X-Forwarded-* fields that the gateway adds (host "h.example", "@XF:other@" another).
local cases = {}

local HOST = "Host: h.example\r\n"
local SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: smuggled.example\r\n\r\n"

local function add(id, name, case)
  case.id, case.name = id, name
  cases[#cases + 1] = case
end

-- Refused for its form: nothing reaches the backend, the connection is closed, what follows is never looked at.
local function bad(id, name, raw, status)
  add(id, name, { send = raw .. SMUGGLED, status = status or 400, close = true })
end

local function good(id, name, raw, backend, more)
  local case = { send = raw, status = 200, close = false, backend = { backend } }
  for key, value in pairs(more or {}) do case[key] = value end
  add(id, name, case)
end

local function show(text)
  return (#text > 40 and text:sub(1, 40) .. "..." or text):gsub("[%c\127-\255]", function(c)
    return ("\\x%02x"):format(c:byte())
  end)
end

local function get(fields, target)
  return "GET " .. (target or "/a") .. " HTTP/1.1\r\n" .. HOST .. (fields or "") .. "\r\n"
end

local function seen(fields, target)
  return { head = "GET " .. (target or "/a") .. " HTTP/1.1\r\n" .. HOST .. (fields or "") .. "@XF@\r\n", body = "" }
end

-- A01: Content-Length with Transfer-Encoding, both orders, any case of letters.
for _, pair in ipairs {
  { "Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n" },
  { "content-length: 6\r\n", "TRANSFER-ENCODING: CHUNKED\r\n" },
  { "CONTENT-LENGTH:6\r\n", "transfer-encoding:chunked\r\n" },
  { "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n" },
} do
  local cl, te = pair[1], pair[2]
  bad("A01", "CL.TE " .. show(cl .. te), "POST /a HTTP/1.1\r\n" .. HOST .. cl .. te .. "\r\n0\r\n\r\nG")
  bad("A01", "TE.CL " .. show(te .. cl), "POST /a HTTP/1.1\r\n" .. HOST .. te .. cl .. "\r\n0\r\n\r\nG")
  bad("A01", "TE and CL apart " .. show(te .. cl),
    "POST /a HTTP/1.1\r\n" .. te .. HOST .. "X: y\r\n" .. cl .. "\r\n0\r\n\r\nG")
end
bad("A01", "GET with both", "GET /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

-- A02: Transfer-Encoding in disguise. `alone` is the answer without a Content-Length beside it; 200: the field is right.
local TE_MUTATIONS = {
  { "Transfer-Encoding: xchunked", { 400, 501 } }, { "Transfer-Encoding: chunkedx", { 400, 501 } },
  { "Transfer-Encoding: x chunked", { 400, 501 } }, { "Transfer-Encoding: chunked x", { 400, 501 } },
  { "Transfer-Encoding : chunked" }, { "Transfer-Encoding\t: chunked" }, { " Transfer-Encoding: chunked" },
  { "\tTransfer-Encoding: chunked" }, { "X: y\r\n Transfer-Encoding: chunked" },
  { "X: y\r\n\tTransfer-Encoding: chunked" }, { "Transfer-Encoding:\r\n chunked" },
  { "Transfer-Encoding:\r\n\tchunked" }, { "Transfer-Encoding: chunked\r\n " }, { "Transfer-Encoding: chunked\r\n\t x" },
  { "Transfer-Encoding: chunked\11", { 400, 501 } }, { "Transfer-Encoding: chunked\12", { 400, 501 } },
  { "Transfer-Encoding: \11chunked", { 400, 501 } }, { "Transfer-Encoding: \12chunked", { 400, 501 } },
  { "Transfer-Encoding: chunked\0" }, { "Transfer-Encoding: \0chunked" }, { "Transfer-Encoding\0: chunked" },
  { "Transfer-Encoding: chunked\127" }, { "Transfer-Encoding: chun\27ked" },
  { "Transfer-Encoding: chunked\r" }, { "Transfer-Encoding: \rchunked" }, { "Transfer-Encoding: chun\rked" },
  { "Transfer-Encoding\r: chunked" }, { "Transfer-Encoding:\nchunked" }, { "Transfer-Encoding:\n chunked" },
  { "X: y\nTransfer-Encoding: chunked" }, { "X: y\rTransfer-Encoding: chunked" }, { "X: y\r\r\nTransfer-Encoding: chunked" },
  { "Transfer-Encoding\r\n: chunked" }, { "Transfer-Encoding" }, { "Transfer-Encoding chunked" },
  { "Transfer-Encoding=chunked" }, { ":Transfer-Encoding: chunked" }, { "Transfer Encoding: chunked" },
  { "Transfer_Encoding: chunked" }, { "TRANSFER_ENCODING: chunked" }, { "\"Transfer-Encoding\": chunked" },
  { "Transfer-Encoding(x): chunked" }, { "Transfer\255Encoding: chunked" }, { "Transfer-Encod\195\173ng: chunked" },
  { "Transfer-Encoding:", { 400, 501 } }, { "Transfer-Encoding: ", { 400, 501 } }, { "Transfer-Encoding: \t ", { 400, 501 } },
  { "Transfer-Encoding: chunked, chunked", { 400, 501 } }, { "Transfer-Encoding: chunked,chunked", { 400, 501 } },
  { "Transfer-Encoding: ,chunked", { 400, 501 } }, { "Transfer-Encoding: , chunked", { 400, 501 } },
  { "Transfer-Encoding: chunked,", { 400, 501 } }, { "Transfer-Encoding: chunked, ", { 400, 501 } },
  { "Transfer-Encoding: ,", { 400, 501 } }, { "Transfer-Encoding: identity", { 400, 501 } },
  { "Transfer-Encoding: chunked, identity", { 400, 501 } }, { "Transfer-Encoding: identity, chunked", { 400, 501 } },
  { "Transfer-Encoding: gzip", { 400, 501 } }, { "Transfer-Encoding: gzip, chunked", { 400, 501 } },
  { "Transfer-Encoding: chunked, gzip", { 400, 501 } }, { "Transfer-Encoding: compress, chunked", { 400, 501 } },
  { "Transfer-Encoding: chunked chunked", { 400, 501 } }, { "Transfer-Encoding: chunked;", { 400, 501 } },
  { "Transfer-Encoding: chunked;q=1", { 400, 501 } }, { "Transfer-Encoding: chunked; x=y", { 400, 501 } },
  { "Transfer-Encoding: \"chunked\"", { 400, 501 } }, { "Transfer-Encoding: 'chunked'", { 400, 501 } },
  { "Transfer-Encoding: chunked\160", { 400, 501 } }, { "Transfer-Encoding: \160chunked", { 400, 501 } },
  { "Transfer-Encoding: chun\239\187\191ked", { 400, 501 } }, { "Transfer-Encoding: trailers", { 400, 501 } },
  { "Transfer-Encoding: 5", { 400, 501 } }, { "Transfer-Encoding: none", { 400, 501 } },
  { "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", { 400, 501 } },
  { "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", { 400, 501 } },
  { "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", { 400, 501 } },
  { "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", { 400, 501 } },
  { "Transfer-Encoding:\r\nTransfer-Encoding: chunked", { 400, 501 } },
  { "Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding: chunked", { 400, 501 } },
  { "Transfer-Encoding:chunked", 200 }, { "Transfer-Encoding: \t chunked", 200 }, { "Transfer-Encoding: chunked \t", 200 },
  { "transfer-encoding: CHUNKED", 200 }, { "tRANSFER-eNCODING: ChUnKeD", 200 },
}

for _, mutation in ipairs(TE_MUTATIONS) do
  local line, alone = mutation[1], mutation[2] or 400
  local both = alone == 200 and 400 or alone
  bad("A02", "CL.TE " .. show(line),
    "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\r\n" .. line .. "\r\n\r\n0\r\n\r\n", both)
  bad("A02", "TE.CL " .. show(line),
    "POST /a HTTP/1.1\r\n" .. HOST .. line .. "\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", both)
  if alone == 200 then
    good("A02", "alone " .. show(line), "POST /a HTTP/1.1\r\n" .. HOST .. line .. "\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      { head = "POST /a HTTP/1.1\r\n" .. HOST .. "@XF@Transfer-Encoding: chunked\r\n\r\n", body = "hello" })
  else
    bad("A02", "alone " .. show(line), "POST /a HTTP/1.1\r\n" .. HOST .. line .. "\r\n\r\n0\r\n\r\n", alone)
  end
end

-- A03: Transfer-Encoding in HTTP/1.0.
for _, fields in ipairs { "", "Connection: keep-alive\r\n", "Content-Length: 5\r\n" } do
  bad("A03", "HTTP/1.0 with chunked " .. show(fields),
    "POST /a HTTP/1.0\r\n" .. HOST .. fields .. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
end

-- A04: Content-Length repeated or listed.
for _, fields in ipairs {
  "Content-Length: 5, 5", "Content-Length: 5,5", "Content-Length: 5 ,5", "Content-Length: 5,6", "Content-Length: 5,",
  "Content-Length: ,5", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6",
  "Content-Length: 6\r\nContent-Length: 5", "Content-Length: 5\r\ncontent-length: 5\r\nCONTENT-LENGTH: 5",
  "Content-Length: 5\r\nX: y\r\nContent-Length: 0", "Content-Length: 0\r\nContent-Length: 0",
} do
  bad("A04", show(fields), "POST /a HTTP/1.1\r\n" .. HOST .. fields .. "\r\n\r\nhello")
end

-- A05: Content-Length that is no 1*DIGIT, or too large to be true.
for _, value in ipairs {
  "+5", "-5", "-0", "0x5", "1_0", "5 5", "5\t5", "", " ", "5.0", "5e0", "5;", "5h", "h5", "five", "0b1", "'5'", "\"5\"",
  "\217\165", "5\160", "9223372036854775808", "18446744073709551615", "18446744073709551616", "18446744073709551621",
  "99999999999999999999999999", "-9223372036854775808", "--5", "5-", "5+", "(5)", "5/1", "0x", "\0005", "5\0",
} do
  bad("A05", "Content-Length " .. show(value), "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length: " .. value .. "\r\n\r\nhello")
end
for _, value in ipairs { "5", "  5", "5  ", "\t5" } do
  good("A05", "Content-Length " .. show(value),
    "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length:" .. value .. "\r\n\r\nhello",
    { head = "POST /a HTTP/1.1\r\n" .. HOST .. "@XF@Content-Length: 5\r\n\r\n", body = "hello" })
end
-- Legal white space, yet no peer writes it, and parsers differ on it: strict.
bad("A05", "Content-Length 5\\t", "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\t\r\n\r\nhello")
bad("A05", "Content-Length with leading zeros", "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 0005\r\n\r\nhello")
bad("A05", "Content-Length 00", "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 00\r\n\r\n")

-- A06: a body where none is usual, holding a whole request: framed and forwarded, never taken for a request.
for _, method in ipairs { "GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH" } do
  good("A06", method .. " with a request as its body",
    method .. " /a HTTP/1.1\r\n" .. HOST .. "Content-Length: " .. #SMUGGLED .. "\r\n\r\n" .. SMUGGLED,
    { head = method .. " /a HTTP/1.1\r\n" .. HOST .. "@XF@Content-Length: " .. #SMUGGLED .. "\r\n\r\n", body = SMUGGLED },
    { method = method })
  good("A06", method .. " with a request as its chunked body",
    ("%s /a HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"):format(method, HOST, #SMUGGLED, SMUGGLED),
    { head = method .. " /a HTTP/1.1\r\n" .. HOST .. "@XF@Transfer-Encoding: chunked\r\n\r\n", body = SMUGGLED },
    { method = method })
end
good("A06", "body split off the head", { "DELETE /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 10\r\n\r\n", "GET /", "x HTT" },
  { head = "DELETE /a HTTP/1.1\r\n" .. HOST .. "@XF@Content-Length: 10\r\n\r\n", body = "GET /x HTT" })

-- A07: expectations other than 100-continue.
for _, value in ipairs { "200-ok", "100-continues", "x", "100-continue, x", "\"100-continue\"" } do
  bad("A07", "Expect " .. value, "POST /a HTTP/1.1\r\n" .. HOST .. "Expect: " .. value .. "\r\nContent-Length: 0\r\n\r\n", 417)
end

-- A09: versions.
for _, version in ipairs {
  "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2", "HTTP/3.0", "HTTP/9.9", "HTTP/1.1 ", " HTTP/1.1", "HTTP/01.1", "HTTP/1.01",
  "HTTP/1.10", "HTTP/11", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/", "HTTP", "http/1.1", "Http/1.1", "HTTP /1.1", "HTTP/ 1.1",
  "HTTP/1 .1", "HTTP/1,1", "HTTP/1.1\t", "HTTP/+1.1", "HTTP/-1.1", "HTTP/1.1x", "xHTTP/1.1", "HTTPS/1.1", "HTCPCP/1.0",
  "RTSP/1.0", "ICE/1.0", "SIP/2.0", "HTTP/1.1\0", "\0HTTP/1.1", "HTTP/A.1", "HTTP/1.A", "HTTP\\1.1",
} do
  bad("A09", "version " .. show(version), "GET /a " .. version .. "\r\n" .. HOST .. "\r\n", { 400, 505 })
end
bad("A09", "HTTP/0.9 request", "GET /a\r\n")
bad("A09", "HTTP/0.9 request with trailing space", "GET /a \r\n")
bad("A09", "an RTSP method", "DESCRIBE /a RTSP/1.0\r\n" .. HOST .. "\r\n", { 400, 501, 505 })
bad("A09", "an RTSP method with HTTP's version", "DESCRIBE /a HTTP/1.1\r\n" .. HOST .. "\r\n", { 400, 501 })
bad("A09", "an ICE method", "SOURCE /a ICE/1.0\r\n" .. HOST .. "\r\n", { 400, 501, 505 })
add("A09", "a TLS hello", { send = "\22\3\1\2\0\1\0\1\252\3\3" .. SMUGGLED, close = true }) -- nobody would read an answer
bad("A09", "a status line", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", { 400, 501, 505 })

-- A10: bare LF.
bad("A10", "after the request line", "GET /a HTTP/1.1\n" .. HOST .. "\r\n")
bad("A10", "after a field", "GET /a HTTP/1.1\r\nHost: h.example\nX: y\r\n\r\n")
bad("A10", "everywhere", "GET /a HTTP/1.1\nHost: h.example\n\n")
bad("A10", "as the empty line", "GET /a HTTP/1.1\r\n" .. HOST .. "\n")
bad("A10", "LF CR as the empty line", "GET /a HTTP/1.1\r\n" .. HOST .. "\n\r")
bad("A10", "before the request line", "\nGET /a HTTP/1.1\r\n" .. HOST .. "\r\n")
bad("A10", "within the target", "GET /a\nb HTTP/1.1\r\n" .. HOST .. "\r\n")
bad("A10", "within a name", "GET /a HTTP/1.1\r\n" .. HOST .. "X\nY: z\r\n\r\n")

-- A11: bare CR.
bad("A11", "after the request line", "GET /a HTTP/1.1\r" .. HOST .. "\r\n")
bad("A11", "before CRLF of the request line", "GET /a HTTP/1.1\r\r\n" .. HOST .. "\r\n")
bad("A11", "within a value", "GET /a HTTP/1.1\r\n" .. HOST .. "X: y\rz\r\n\r\n")
bad("A11", "hiding a field", "GET /a HTTP/1.1\r\n" .. HOST .. "X: y\rContent-Length: 5\r\n\r\n")
bad("A11", "before CRLF of a field", "GET /a HTTP/1.1\r\n" .. HOST .. "X: y\r\r\n\r\n")
bad("A11", "within a name", "GET /a HTTP/1.1\r\n" .. HOST .. "X\rY: z\r\n\r\n")
bad("A11", "within the target", "GET /a\rb HTTP/1.1\r\n" .. HOST .. "\r\n")
bad("A11", "at the start of a field", "GET /a HTTP/1.1\r\n" .. HOST .. "\rX: y\r\n\r\n")
bad("A11", "before the empty line", "GET /a HTTP/1.1\r\n" .. HOST .. "\r\r\n")
bad("A11", "two empty lines of CR", "GET /a HTTP/1.1\r\n" .. HOST .. "\r\rx")

-- A12: obs-fold.
for _, fold in ipairs { " ", "\t", "  ", " \t", " x", "\tx: y" } do
  bad("A12", "a folded value " .. show(fold), get("X: y\r\n" .. fold .. "z\r\n"))
  bad("A12", "folded Host " .. show(fold), "GET /a HTTP/1.1\r\nHost: h\r\n" .. fold .. ".example\r\n\r\n")
end
bad("A12", "a fold as the first field line", "GET /a HTTP/1.1\r\n X: y\r\n" .. HOST .. "\r\n")
bad("A12", "a line of white space only", get("X: y\r\n \r\n"))

-- A13: field names.
bad("A13", "space before the colon", get("X : y\r\n"))
bad("A13", "tab before the colon", get("X\t: y\r\n"))
bad("A13", "space before the colon of Host", "GET /a HTTP/1.1\r\nHost : h.example\r\n\r\n")
bad("A13", "empty name", get(": y\r\n"))
bad("A13", "colon alone", get(":\r\n"))
bad("A13", "no colon", get("Xy\r\n"))
bad("A13", "no colon, with a space", get("X y\r\n"))
for _, char in ipairs { " ", "(", ")", ",", "/", ";", "<", "=", ">", "?", "@", "[", "\\", "]", "{", "}", "\"", "\127", "\128",
  "\255", "\1", "\31", "\11", "\0", "\195\169" } do
  bad("A13", "name with " .. show(char), get("X" .. char .. "Y: z\r\n"))
end
good("A13", "every character a name may have", get("!#$%&'*+-.^`|~09azAZ: y\r\n"), seen("!#$%&'*+-.^`|~09azAZ: y\r\n"))

-- A14: control bytes in values.
for byte = 0, 31 do
  if byte ~= 9 and byte ~= 10 and byte ~= 13 then
    bad("A14", ("byte 0x%02x in a value"):format(byte), get("X: a" .. string.char(byte) .. "b\r\n"))
  end
end
bad("A14", "DEL in a value", get("X: a\127b\r\n"))
bad("A14", "NUL in Host", "GET /a HTTP/1.1\r\nHost: h\0.example\r\n\r\n")
bad("A14", "NUL at the end of a value", get("X: a\0\r\n"))
good("A14", "HTAB within a value", get("X: a\tb\r\n"), seen("X: a\tb\r\n"))
good("A14", "bytes above 127", get("X: \128\195\169\255\r\n"), seen("X: \128\195\169\255\r\n"))
good("A14", "an empty value", get("X:\r\n"), seen("X: \r\n"))

-- A15: chunk lines. The head is right, so a part of the request may have gone out already; it must never look complete.
local function chunks(name, body, piece)
  local head = "POST /a HTTP/1.1\r\n" .. HOST .. "Transfer-Encoding: chunked\r\n\r\n"
  add("A15", name, {
    send = piece and { head, body .. SMUGGLED } or head .. body .. SMUGGLED, status = 400, close = true,
    partial = { head = "POST /a HTTP/1.1\r\n" .. HOST .. "@XF@Transfer-Encoding: chunked\r\n\r\n", body = "hello" },
  })
end

for _, piece in ipairs { false, true } do
  local how = piece and " (body apart)" or ""
  for _, line in ipairs {
    "5\n", "5\r", "5 \r\n", " 5\r\n", "\t5\r\n", "5\t\r\n", "+5\r\n", "-5\r\n", "0x5\r\n", "5_\r\n", "0_5\r\n", "5h\r\n", "\r\n", ";\r\n",
    "x\r\n", "5,\r\n", "5.0\r\n", "\"5\"\r\n", "5\0\r\n", "\0005\r\n", "5;\n", "5;x\n", "5;x\ry\r\n", "5;x\0\r\n", "5;x\1y\r\n", "5;x\127\r\n",
    "5\r\r\n", "5\n\r\n", "ffffffffffffffff5\r\n", "10000000000000005\r\n", "80000000000000005\r\n", "5 ;x\r\n\n",
  } do
    chunks("chunk line " .. show(line) .. how, line .. "hello\r\n0\r\n\r\n", piece)
  end
  chunks("no CRLF after the data" .. how, "5\r\nhello0\r\n\r\n", piece)
  chunks("LF after the data" .. how, "5\r\nhello\n0\r\n\r\n", piece)
  chunks("CR after the data" .. how, "5\r\nhello\r0\r\n\r\n", piece)
  chunks("data longer than said" .. how, "5\r\nhello!\r\n0\r\n\r\n", piece)
  chunks("data shorter than said" .. how, "7\r\nhello\r\n0\r\n\r\n", piece)
  cases[#cases].partial.body = "hello\r\n"
  chunks("two bytes for CRLF" .. how, "5\r\nhelloxx0\r\n\r\n", piece)
  chunks("LF after the last chunk" .. how, "5\r\nhello\r\n0\n\r\n", piece)
  chunks("CR after the last chunk" .. how, "5\r\nhello\r\n0\r\r\n", piece)
  chunks("LF as the end" .. how, "5\r\nhello\r\n0\r\n\n", piece)
  chunks("negative last chunk" .. how, "5\r\nhello\r\n-0\r\n\r\n", piece)
  chunks("hexadecimal last chunk" .. how, "5\r\nhello\r\n0x0\r\n\r\n", piece)
  chunks("trailer without colon" .. how, "5\r\nhello\r\n0\r\nX\r\n\r\n", piece)
  chunks("trailer with a bare LF" .. how, "5\r\nhello\r\n0\r\nX: y\n\r\n", piece)
  chunks("trailer with a bare CR" .. how, "5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n", piece)
  chunks("folded trailer" .. how, "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", piece)
  chunks("trailer with a space before its colon" .. how, "5\r\nhello\r\n0\r\nX : y\r\n\r\n", piece)
  chunks("trailer with NUL" .. how, "5\r\nhello\r\n0\r\nX: y\0\r\n\r\n", piece)
  chunks("trailer with an empty name" .. how, "5\r\nhello\r\n0\r\n: y\r\n\r\n", piece)
end

local CHUNKED_HEAD = "POST /a HTTP/1.1\r\n" .. HOST .. "@XF@Transfer-Encoding: chunked\r\n\r\n"

local function rechunked(id, name, body, expected, trailers)
  good(id, name, "POST /a HTTP/1.1\r\n" .. HOST .. "Transfer-Encoding: chunked\r\n\r\n" .. body,
    { head = CHUNKED_HEAD, body = expected, trailers = trailers or "" })
end

rechunked("A15", "extensions are not forwarded", "5;a=b;c\r\nhello\r\n0;x\r\n\r\n", "hello")
rechunked("A15", "a quoted extension", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", "hello")
rechunked("A15", "upper case and leading zeros", "000A\r\n0123456789\r\n00\r\n\r\n", "0123456789")
rechunked("A15", "lower case", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789")
rechunked("A15", "an empty body", "0\r\n\r\n", "")
rechunked("A15", "one byte a chunk", "1\r\nh\r\n1\r\ne\r\n1\r\ny\r\n0\r\n\r\n", "hey")
chunks("extensions of 64 KiB", "5;" .. ("x"):rep(65536) .. "\r\nhello\r\n0\r\n\r\n")
chunks("a flood of small extensions", ("1;xxxxxxxx\r\nh\r\n"):rep(1000) .. "0\r\n\r\n")
cases[#cases].partial.body = ("h"):rep(1000)
add("A15", "the last chunk is missing", {
  send = "POST /a HTTP/1.1\r\n" .. HOST .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", half_close = true, close = true,
  partial = { head = CHUNKED_HEAD, body = "hello" },
})

-- A16: trailers, by list.
rechunked("A16", "a trailer passes", "5\r\nhello\r\n0\r\nX-Checksum: abc\r\n\r\n", "hello", "X-Checksum: abc\r\n")
for _, line in ipairs {
  "Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil.example", "Authorization: Basic x", "Content-Type: x/y",
  "Connection: close", "Cookie: a=b", "Content-Encoding: gzip", "Trailer: x", "X-Forwarded-For: 6.6.6.6", "TE: trailers",
  "Set-Cookie: a=b", "Expect: 100-continue", "Upgrade: websocket", "Content-Range: bytes 0-1/2", "Proxy-Authorization: x",
} do
  rechunked("A16", "forbidden trailer " .. line, "5\r\nhello\r\n0\r\n" .. line .. "\r\nX-Ok: 1\r\n\r\n", "hello", "X-Ok: 1\r\n")
end
chunks("trailers of 64 KiB", "5\r\nhello\r\n0\r\n" .. ("X: " .. ("y"):rep(1000) .. "\r\n"):rep(64) .. "\r\n")
chunks("a thousand trailers", "5\r\nhello\r\n0\r\n" .. ("X: y\r\n"):rep(1000) .. "\r\n")

-- A17: Host and the absolute form.
bad("A17", "no Host", "GET /a HTTP/1.1\r\nX: y\r\n\r\n")
bad("A17", "Host twice, the same", "GET /a HTTP/1.1\r\n" .. HOST .. HOST .. "\r\n")
bad("A17", "Host twice, different", "GET /a HTTP/1.1\r\n" .. HOST .. "Host: other.example\r\n\r\n")
bad("A17", "Host twice, apart and in other case", "GET /a HTTP/1.1\r\nhost: h.example\r\nX: y\r\nHOST: h.example\r\n\r\n")
bad("A17", "Host twice, one empty", "GET /a HTTP/1.1\r\n" .. HOST .. "Host:\r\n\r\n")
bad("A17", "HTTP/1.0 with Host twice", "GET /a HTTP/1.0\r\n" .. HOST .. HOST .. "\r\n")
for _, value in ipairs {
  "", " ", "h.example/", "h.example/x", "h example", "h.example, other", "h.example,", "u@h.example", "u:p@h.example", "h.example#x",
  "h.example?x", "h%41", "h\\x", "h.example:", "h.example:x", "h.example:80x", "h.example:-1", "h.example:+80", "h.example:99999",
  "h.example:65536", "h.example:80:80", ":80", "[::1", "::1]", "[::1]x", "[::g]", "[]", "[::1]:", "h..example", ".h", "http://h.example",
  "h\"x", "h<x", "h|x", "h^x", "h`x", "h{x}", "\195\169", "h\127", "h\t.example", "@", "/", "#", "h;x y",
} do
  bad("A17", "Host " .. show(value), "GET /a HTTP/1.1\r\nHost: " .. value .. "\r\n\r\n")
end
for _, value in ipairs { "h.example:80", "h.example:8080", "h.example.", "H.Example", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080",
  "localhost", "xn--bcher-kva.example" } do
  good("A17", "Host " .. value, "GET /a HTTP/1.1\r\nHost: " .. value .. "\r\n\r\n",
    { head = "GET /a HTTP/1.1\r\nHost: " .. value .. "\r\n@XF:" .. value .. "@\r\n", body = "" })
end
for target, path in pairs {
  ["http://h.example/a"] = "/a", ["http://h.example"] = "/", ["http://h.example/"] = "/", ["HTTP://h.example/a?b=c"] = "/a?b=c",
  ["http://h.example?b=c"] = "/?b=c", ["http://h.example/a/../b"] = "/b",
} do
  good("A17", "absolute form " .. target, "GET " .. target .. " HTTP/1.1\r\n" .. HOST .. "\r\n", seen("", path))
end
for _, target in ipairs {
  "http://other.example/a", "http://h.example:81/a", "http://h.example.evil/a", "http://u@h.example/a", "http://u:p@h.example/a",
  "http:///a", "http://", "http:/a", "http:a", "http://h.example#x", "http://h.example/a#x", "ftp://h.example/a", "ws://h.example/a",
  "file:///etc/passwd", "javascript:alert(1)", "gopher://h.example/", "h.example/a", "h.example:80", "a", "?a", "#", "http//h.example/a",
  "http://h.example:x/a", "http://h.example:99999/a", "http://[::1/a", "http://h example/a", "*a", "**",
} do
  bad("A17", "target " .. target, "GET " .. target .. " HTTP/1.1\r\n" .. HOST .. "\r\n")
end
bad("A17", "absolute form without Host", "GET http://h.example/a HTTP/1.1\r\n\r\n")

-- A18: methods and the request line.
bad("A18", "CONNECT", "CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\n", { 400, 405, 501 })
bad("A18", "GET *", "GET * HTTP/1.1\r\n" .. HOST .. "\r\n")
for _, method in ipairs { "FOO", "get", "Get", "GETX", "X-Y", "G", "!#$%&'*+.^`|~" } do
  bad("A18", "unknown method " .. method, method .. " /a HTTP/1.1\r\n" .. HOST .. "\r\n", 501)
end
for _, line in ipairs {
  "GET  /a HTTP/1.1", "GET /a  HTTP/1.1", " GET /a HTTP/1.1", "\tGET /a HTTP/1.1", "GET\t/a HTTP/1.1", "GET /a\tHTTP/1.1", "GET /a HTTP/1.1 x",
  "GET /a b HTTP/1.1", "GET HTTP/1.1", "GET", "GET ", "/a HTTP/1.1", "G@T /a HTTP/1.1", "G\0T /a HTTP/1.1", "GE:T /a HTTP/1.1", "(GET) /a HTTP/1.1",
  "GET /a\0b HTTP/1.1", "GET /a\1b HTTP/1.1", "GET /a\127b HTTP/1.1", "GET /a\128b HTTP/1.1", "GET /\195\169 HTTP/1.1", "GET /a\11b HTTP/1.1",
  "G\195\169T /a HTTP/1.1", "\239\187\191GET /a HTTP/1.1", "GET,POST /a HTTP/1.1", "GET /a#x HTTP/1.1", "GET /a?b#x HTTP/1.1",
} do
  bad("A18", "request line " .. show(line), line .. "\r\n" .. HOST .. "\r\n")
end
bad("A18", "a method of 64 KiB", ("A"):rep(65536) .. " /a HTTP/1.1\r\n" .. HOST .. "\r\n", { 400, 414, 431, 501 })
good("A18", "OPTIONS *", "OPTIONS * HTTP/1.1\r\n" .. HOST .. "\r\n",
  { head = "OPTIONS * HTTP/1.1\r\n" .. HOST .. "@XF@\r\n", body = "" })
bad("A18", "TRACE with a body", "TRACE /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\r\n\r\nhello")
good("A18", "one empty line before the request", "\r\n" .. get(), seen())
bad("A18", "three empty lines before the request", "\r\n\r\n\r\n" .. get())
for _, method in ipairs { "PROPFIND", "REPORT", "PURGE", "MKCOL" } do
  good("A18", method .. " passes", method .. " /a HTTP/1.1\r\n" .. HOST .. "\r\n",
    { head = method .. " /a HTTP/1.1\r\n" .. HOST .. "@XF@\r\n", body = "" })
end

-- A19: paths. One canonical form is routed and forwarded.
for path, forwarded in pairs {
  ["/"] = "/", ["/a/../b"] = "/b", ["/a/./b"] = "/a/b", ["/./a"] = "/a", ["/../a"] = "/a", ["/../../a"] = "/a", ["/a/.."] = "/", ["/a/."] = "/a/",
  ["/a/b/../.."] = "/", ["/.."] = "/", ["/."] = "/", ["/%2e%2e/a"] = "/a", ["/a/%2E%2e/b"] = "/b", ["/a/.%2e/b"] = "/b", ["/a/%2e/b"] = "/a/b",
  ["//"] = "//", ["//a"] = "//a", ["/a//b"] = "/a//b", ["/a/b/"] = "/a/b/", ["/%61%62"] = "/ab", ["/%41"] = "/A", ["/%7Ea"] = "/~a", ["/%2d%5f"] = "/-_",
  ["/a;x=y/b"] = "/a;x=y/b", ["/..."] = "/...", ["/.a"] = "/.a", ["/a.."] = "/a..", ["/%20"] = "/%20", ["/a+b"] = "/a+b",
  ["/%252e%252e/a"] = "/%252e%252e/a", ["/%25%32%65"] = "/%252e", ["/?"] = "/?", ["/?a=b"] = "/?a=b", ["/a?/../b"] = "/a?/../b", ["/a?b=%2e%2e%2f"] = "/a?b=%2e%2e%2f",
  ["/a?b?c"] = "/a?b?c", ["/:@!$&'()*,="] = "/:@!$&'()*,=", ["/a/b/c/../../d"] = "/a/d", ["/%C3%A9"] = "/%C3%A9", ["/%c3%a9"] = "/%C3%A9", ["/a%3Fb"] = "/a%3Fb", ["/a%23b"] = "/a%23b",
  ["/a%3Bb"] = "/a%3Bb", ["/a?b=%00"] = "/a?b=%00",
} do
  good("A19", "path " .. path, get("", path), seen("", forwarded))
end
for _, path in ipairs { "/%00", "/a%00b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a\\b", "/..\\a", "/..%2fa", "/%2e%2e%2fa", "/..%5ca", "/%", "/%2", "/%zz",
  "/%g0", "/%0", "/a%", "/a%2", "/%2%65", "/%u002e", "/a#", "/#", "/a%2f..%2fb", "/a/..;/b", "/a/..;x=y/b", "/.;/a", "/%c0%ae%c0%ae/a", "/%c0%af", "/%e0%80%af" } do
  bad("A19", "path " .. path, get("", path))
end

-- A20: names with underscore.
for _, name in ipairs { "X_Forwarded_For", "Content_Length", "_", "X_Y", "Host_", "_Host", "X-Real_IP" } do
  bad("A20", name, get(name .. ": 5\r\n"))
end

-- A21: forwarding fields and Connection.
good("A21", "X-Forwarded-* of the client are replaced", get("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n" ..
  "X-Forwarded-Host: evil.example\r\n"), seen())
good("A21", "X-Forwarded-For twice", get("X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\n"), seen())
good("A21", "Connection names X-Forwarded-For", get("Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host\r\n"), seen())
good("A21", "Connection names a field of its own", get("Connection: X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\n"), seen("X-Other: 2\r\n"))
good("A21", "Connection names Host", get("Connection: Host\r\n"), seen())
good("A21", "Connection names Authorization and Cookie", get("Connection: Authorization, Cookie\r\nAuthorization: Basic x\r\nCookie: a=b\r\n"),
  seen("Authorization: Basic x\r\nCookie: a=b\r\n"))
good("A21", "Connection names Content-Length",
  "POST /a HTTP/1.1\r\n" .. HOST .. "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
  { head = "POST /a HTTP/1.1\r\n" .. HOST .. "@XF@Content-Length: 5\r\n\r\n", body = "hello" })
good("A21", "Connection names Content-Type", get("Connection: Content-Type\r\nContent-Type: a/b\r\n"), seen("Content-Type: a/b\r\n"))
good("A21", "hop-by-hop fields go", get("Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nTrailer: X\r\n" ..
  "Proxy-Authorization: Basic x\r\nX: y\r\n"), seen("X: y\r\n"))
good("A21", "Connection with empty members", get("Connection: , ,keep-alive,,\r\nX: y\r\n"), seen("X: y\r\n"))
good("A21", "two Connection fields", get("Connection: X-A\r\nX-A: 1\r\nX-B: 2\r\nConnection: x-b\r\n"), seen())
add("A21", "Connection: close among others", {
  send = get("Connection: keep-alive, X-A, close\r\nX-A: 1\r\n"), status = 200, close = true, backend = { seen() },
})

-- A24: upgrades that are none.
good("A24", "h2c is dropped", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), seen())
good("A24", "Upgrade without Connection", get("Upgrade: websocket\r\n"), seen())

-- A26: limits (head 32 KiB, 100 fields, target 16 KiB).
good("A26", "a target of 8,000 bytes", get("", "/" .. ("a"):rep(7999)), seen("", "/" .. ("a"):rep(7999)))
good("A26", "a target of 16,384 bytes", get("", "/" .. ("a"):rep(16383)), seen("", "/" .. ("a"):rep(16383)))
bad("A26", "a target of 16,385 bytes", get("", "/" .. ("a"):rep(16384)), 414)
bad("A26", "a target of 64 KiB", get("", "/" .. ("a"):rep(65535)), { 414, 431 })
good("A26", "100 fields", get(("X: y\r\n"):rep(99)), seen(("X: y\r\n"):rep(99)))
bad("A26", "101 fields", get(("X: y\r\n"):rep(100)), 431)
bad("A26", "1,000 fields", get(("X: y\r\n"):rep(999)), 431)
bad("A26", "100,000 fields", get(("X: y\r\n"):rep(100000)), 431)
good("A26", "a field of 30,000 bytes", get("X: " .. ("y"):rep(30000) .. "\r\n"), seen("X: " .. ("y"):rep(30000) .. "\r\n"))
bad("A26", "a head over 32 KiB", get("X: " .. ("y"):rep(32768) .. "\r\n"), 431)
bad("A26", "a field of 1 MiB", get("X: " .. ("y"):rep(1048576) .. "\r\n"), 431)
bad("A26", "a name of 64 KiB", get(("X"):rep(65536) .. ": y\r\n"), 431)
good("A26", "head in single bytes", (function()
  local pieces = {}
  for byte in get("X: y\r\n"):gmatch "." do pieces[#pieces + 1] = byte end
  return pieces
end)(), seen("X: y\r\n"))

-- A27: pipelining with something wrong behind something right.
add("A27", "three requests at once", {
  send = get("", "/1") .. get("", "/2") .. get("", "/3"), statuses = { 200, 200, 200 }, close = false,
  backend = { seen("", "/1"), seen("", "/2"), seen("", "/3") },
})
add("A27", "a bad request behind a good one", {
  send = get("", "/1") .. "GET  /2 HTTP/1.1\r\n\r\n" .. SMUGGLED, statuses = { 200, 400 }, close = true, backend = { seen("", "/1") },
})
add("A27", "Connection: close in the middle", {
  send = get("", "/1") .. get("Connection: close\r\n", "/2") .. SMUGGLED, statuses = { 200, 200 }, close = true,
  backend = { seen("", "/1"), seen("", "/2") },
})
add("A27", "a request behind a body", {
  send = "POST /1 HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\r\n\r\nhello" .. get("", "/2"), statuses = { 200, 200 }, close = false,
  backend = { { head = "POST /1 HTTP/1.1\r\n" .. HOST .. "@XF@Content-Length: 5\r\n\r\n", body = "hello" }, seen("", "/2") },
})
add("A27", "a request behind a chunked body", {
  send = "POST /1 HTTP/1.1\r\n" .. HOST .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" .. get("", "/2"),
  statuses = { 200, 200 }, close = false,
  backend = { { head = "POST /1 HTTP/1.1\r\n" .. HOST .. "@XF@Transfer-Encoding: chunked\r\n\r\n", body = "hello" }, seen("", "/2") },
})

-- A60: slow or never ending (the gateway of the spec allows 1 s for a head and for a stalled body).
add("A60", "a head that never ends", { send = "GET /a HTTP/1.1\r\nHost: h.exa", status = 408, close = true })
add("A60", "a request line that never ends", { send = "GET /a", status = 408, close = true })
add("A60", "an end of the client within a head", { send = "GET /a HTTP/1.1\r\nHost: h", half_close = true, status = { 400, 408 },
  is_silence_allowed = true, close = true })
add("A60", "a body that never comes", {
  send = "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\r\n\r\nhe", status = 408, close = true,
  partial = { head = "POST /a HTTP/1.1\r\n" .. HOST .. "@XF@Content-Length: 5\r\n\r\n", body = "hello" },
})
add("A60", "an end of the client within a body", {
  send = "POST /a HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\r\n\r\nhe", half_close = true, close = true,
  partial = { head = "POST /a HTTP/1.1\r\n" .. HOST .. "@XF@Content-Length: 5\r\n\r\n", body = "hello" },
})

return cases
