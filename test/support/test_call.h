// A filter for the specs of calls (exchange/call.h): in access it makes the calls that its configuration says, all at once, and
// answers with what came of them, as JSON:
//
//   { "test-call", url = "http://127.0.0.1:8000/x", method = "POST", body = "b", upstream = "", fields = { "x-a: 1" },
//     timeout = 1, connect_timeout = 0.5, body_max = 100, count = 1, times = 1 }
//
//   { "calls": [ { "start": 0 } or { "error": 0, "text": "success", "status": 200, "fields": "name: value\n...",
//                  "body_len": 5, "body_sum": 1234, "body": "the first 1000 bytes" } ... ] }
//
// `times`: so many rounds of `count` calls, one after the other; the last round is told. A field of the request x-url replaces
// the url. On stderr: "test-call info waits", "test-call info cancelled".
#pragma once

#include "filter/filter.h"

extern const struct moon_filter_type test_call;
