// Request heads: the attack table of HTTP/1 as far as a parser can judge (A01-A06, A09-A14,
// A17-A20, A24, A26), and what an accepted head reads as.
#include "fixture.h"

#include <stdio.h>

struct row {
    const char *id;
    struct moon_slice raw;
    int status; // 0: accepted
    const char *reason;
};

#define LINE "GET / HTTP/1.1\r\n"
#define H LINE "Host: a\r\n"
#define P "POST / HTTP/1.1\r\nHost: a\r\n"
#define P10 "POST / HTTP/1.0\r\nHost: a\r\n"
#define END "\r\n"

static const struct row rows[] = {
    {"A01", RAW(P "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END), 400,
     "Content-Length with Transfer-Encoding"},
    {"A01", RAW(P "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" END), 400,
     "Content-Length with Transfer-Encoding"},
    {"A01", RAW(P "tRANSFER-eNCODING: CHUNKED\r\ncONTENT-lENGTH: 0\r\n" END), 400,
     "Content-Length with Transfer-Encoding"},
    {"A02", RAW(P "Transfer-Encoding: chunked\r\n" END), 0, NULL},
    {"A02", RAW(P "Transfer-Encoding: CHUNKED\r\n" END), 0, NULL},
    {"A02", RAW(P "Transfer-Encoding:chunked\r\n" END), 0, NULL},
    {"A02", RAW(P "Transfer-Encoding: \t chunked \t\r\n" END), 0, NULL},
    {"A02", RAW(P "Transfer-Encoding: xchunked\r\n" END), 501, "unknown Transfer-Encoding"},
    {"A02", RAW(P "Transfer-Encoding: chunkedx\r\n" END), 501, "unknown Transfer-Encoding"},
    {"A02", RAW(P "Transfer-Encoding: gzip\r\n" END), 501, "unknown Transfer-Encoding"},
    {"A02", RAW(P "Transfer-Encoding: gzip, chunked\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: chunked, gzip\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: chunked, chunked\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: ,chunked\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: chunked,\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: identity\r\n" END), 400, "malformed Transfer-Encoding"},
    {"A02", RAW(P "Transfer-Encoding: identity, chunked\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: chunked;q=1\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: \"chunked\"\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: \r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding:\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n" END), 400, NULL},
    {"A02", RAW(P "Transfer-Encoding : chunked\r\n" END), 400, "white space before a colon"},
    {"A02", RAW(P "Transfer-Encoding\t: chunked\r\n" END), 400, "white space before a colon"},
    {"A02", RAW(P "Transfer_Encoding: chunked\r\n" END), 400, "underscore in a header name"},
    {"A02", RAW(P "Transfer-Encoding: chunked\x0b\r\n" END), 400, "control byte in the head"},
    {"A02",
     RAW(P "Transfer-Encoding: \x0c"
           "chunked\r\n" END),
     400, "control byte in the head"},
    {"A02", RAW(P "Transfer-Encoding: chunked\0\r\n" END), 400, "NUL in the head"},
    {"A02", RAW(P "Transfer-Encoding:\r\n chunked\r\n" END), 400, "folded header line"},
    {"A02", RAW(P "Transfer-Encoding: chu\r\n nked\r\n" END), 400, "folded header line"},
    {"A02",
     RAW(P "Transfer-Encoding: \xff"
           "chunked\r\n" END),
     400, NULL},
    {"A02", RAW(P "Transfer-Encoding: ch\xef\xbd\x95nked\r\n" END), 400, NULL},
    {"A02", RAW(P "X: a\rTransfer-Encoding: chunked\r\n" END), 400, "bare CR in the head"},
    {"A02", RAW(P "X: a\nTransfer-Encoding: chunked\r\n" END), 400, "bare LF in the head"},
    {"A02", RAW(P " Transfer-Encoding: chunked\r\n" END), 400, "folded header line"},
    {"A03", RAW(P10 "Transfer-Encoding: chunked\r\n" END), 400, "Transfer-Encoding in HTTP/1.0"},
    {"A03", RAW(P10 "Transfer-Encoding: identity\r\n" END), 400, "Transfer-Encoding in HTTP/1.0"},
    {"A04", RAW(P "Content-Length: 5, 5\r\n" END), 400, "malformed Content-Length"},
    {"A04", RAW(P "Content-Length: 5,5\r\n" END), 400, "malformed Content-Length"},
    {"A04", RAW(P "Content-Length: 5\r\nContent-Length: 5\r\n" END), 400,
     "repeated Content-Length"},
    {"A04", RAW(P "Content-Length: 5\r\nContent-Length: 6\r\n" END), 400,
     "repeated Content-Length"},
    {"A04", RAW(P "Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\nContent-Length: 5\r\n" END),
     400, "repeated Content-Length"},
    {"A05", RAW(P "Content-Length: 0\r\n" END), 0, NULL},
    {"A05", RAW(P "Content-Length: 9223372036854775807\r\n" END), 0, NULL},
    {"A05", RAW(P "Content-Length: 9223372036854775808\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 18446744073709551615\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 18446744073709551617\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 99999999999999999999999\r\n" END), 400,
     "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: +5\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: -5\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: -0\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 0x5\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 1_0\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 05\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 00\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 5 5\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 5;a\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: 5.0\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content-Length: \r\n" END), 400, NULL},
    {"A05", RAW(P "Content-Length:\r\n" END), 400, NULL},
    {"A05", RAW(P "Content-Length: five\r\n" END), 400, "malformed Content-Length"},
    {"A05", RAW(P "Content_Length: 5\r\n" END), 400, "underscore in a header name"},
    {"A06", RAW(H "Content-Length: 44\r\n" END), 0, NULL},
    {"A06", RAW("DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" END), 0, NULL},
    {"A07", RAW(P "Expect: 100-continue\r\n" END), 0, NULL},
    {"A07", RAW(P "Expect: 100-Continue\r\n" END), 0, NULL},
    {"A07", RAW(P "Expect: 200-ok\r\n" END), 417, "unknown expectation"},
    {"A07", RAW(P "Expect: \r\n" END), 417, "unknown expectation"},
    {"A07", RAW(P "Expect: 100-continue, x\r\n" END), 417, "unknown expectation"},
    {"A07", RAW(P "Expect: 100-continue\r\nExpect: 100-continue\r\n" END), 400, "repeated Expect"},
    {"A09", RAW("GET /\r\n" END), 400, "request line without a version"},
    {"A09", RAW("GET\r\n" END), 400, "malformed request line"},
    {"A09", RAW("GET / HTTP/0.9\r\nHost: a\r\n" END), 505, "HTTP version not supported"},
    {"A09", RAW("GET / HTTP/1.2\r\nHost: a\r\n" END), 505, "HTTP version not supported"},
    {"A09", RAW("GET / HTTP/1.9\r\nHost: a\r\n" END), 505, "HTTP version not supported"},
    {"A09", RAW("GET / HTTP/2.0\r\nHost: a\r\n" END), 505, "HTTP version not supported"},
    {"A09", RAW("GET / HTTP/3.0\r\nHost: a\r\n" END), 505, "HTTP version not supported"},
    {"A09", RAW("GET / HTTP/01.1\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / HTTP/1.01\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / HTTP/1\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / HTTP/1.\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / http/1.1\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / HTTP/1.1 \r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / HTTP /1.1\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / HTTP/1.1\t\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / RTSP/1.0\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("SOURCE / ICE/1.0\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("PRI * HTTP/2.0\r\n" END "SM\r\n\r\n"), 505, "HTTP version not supported"},
    {"A09", RAW("GET  / HTTP/1.1\r\nHost: a\r\n" END), 400, "malformed request line"},
    {"A09", RAW("GET /  HTTP/1.1\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET / a HTTP/1.1\r\nHost: a\r\n" END), 400, "malformed HTTP version"},
    {"A09", RAW("GET\t/ HTTP/1.1\r\nHost: a\r\n" END), 400, NULL},
    {"A10", RAW("GET / HTTP/1.1\nHost: a\n\n"), 400, "bare LF in the head"},
    {"A10", RAW(H "X: y\n" END), 400, "bare LF in the head"},
    {"A11", RAW(H "X: y\rZ: 1\r\n" END), 400, "bare CR in the head"},
    {"A11", RAW("GET /\r HTTP/1.1\r\nHost: a\r\n" END), 400, "bare CR in the head"},
    {"A12", RAW(H "X: y\r\n z\r\n" END), 400, "folded header line"},
    {"A12", RAW(H "X: y\r\n\tz\r\n" END), 400, "folded header line"},
    {"A12", RAW(H "X: y\r\n \r\n" END), 400, "folded header line"},
    {"A13", RAW(H "X : y\r\n" END), 400, "white space before a colon"},
    {"A13", RAW(LINE " Host: a\r\n" END), 400, "folded header line"},
    {"A13", RAW(H ": y\r\n" END), 400, "empty header name"},
    {"A13", RAW(H "novalue\r\n" END), 400, "header line without a colon"},
    {"A13", RAW(H "X y: z\r\n" END), 400, "forbidden byte in a header name"},
    {"A13", RAW(H "X\xe9: z\r\n" END), 400, "forbidden byte in a header name"},
    {"A13", RAW(H "X\x01: z\r\n" END), 400, "control byte in the head"},
    {"A13", RAW(H "X(y): z\r\n" END), 400, "forbidden byte in a header name"},
    {"A13", RAW(H "X\"y: z\r\n" END), 400, "forbidden byte in a header name"},
    {"A14", RAW(H "X: a\0b\r\n" END), 400, "NUL in the head"},
    {"A14", RAW(H "X: a\x7f\r\n" END), 400, "control byte in the head"},
    {"A14", RAW(H "X: caf\xc3\xa9 \xff\tz\r\n" END), 0, NULL},
    {"A17", RAW(LINE END), 400, "missing Host"},
    {"A17", RAW("GET / HTTP/1.0\r\n" END), 0, NULL},
    {"A17", RAW(H "Host: a\r\n" END), 400, "repeated Host"},
    {"A17", RAW(H "Host: b\r\n" END), 400, "repeated Host"},
    {"A17", RAW(LINE "Host:\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: \r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: a/b\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: u@a\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: a,b\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: a b\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: a#b\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: http://a\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: a:99999\r\n" END), 400, "malformed Host"},
    {"A17", RAW(LINE "Host: [::1]:80\r\n" END), 0, NULL},
    {"A17", RAW("GET http://a/x HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A17", RAW("GET HTTP://A:80/x HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A17", RAW("GET https://a/x HTTP/1.1\r\nHost: a:443\r\n" END), 0, NULL},
    {"A17", RAW("GET http://b/x HTTP/1.1\r\nHost: a\r\n" END), 400,
     "Host differs from the request target"},
    {"A17", RAW("GET http://a:81/x HTTP/1.1\r\nHost: a\r\n" END), 400,
     "Host differs from the request target"},
    {"A17", RAW("GET http://a/x HTTP/1.1\r\n" END), 400, "missing Host"},
    {"A17", RAW("GET http://a/x HTTP/1.0\r\n" END), 0, NULL},
    {"A17", RAW("GET http://u@a/x HTTP/1.1\r\nHost: a\r\n" END), 400,
     "malformed authority in the request target"},
    {"A17", RAW("GET http:///x HTTP/1.1\r\nHost: a\r\n" END), 400,
     "malformed authority in the request target"},
    {"A17", RAW("GET ftp://a/x HTTP/1.1\r\nHost: a\r\n" END), 400,
     "foreign scheme in the request target"},
    {"A17", RAW("GET http:/x HTTP/1.1\r\nHost: a\r\n" END), 400,
     "foreign scheme in the request target"},
    {"A17", RAW("GET a:80 HTTP/1.1\r\nHost: a\r\n" END), 400,
     "foreign scheme in the request target"},
    {"A17", RAW("GET x HTTP/1.1\r\nHost: a\r\n" END), 400, "malformed request target"},
    {"A18", RAW("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n" END), 501, "CONNECT is not offered here"},
    {"A18", RAW("TRACE / HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A18", RAW("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n" END), 400,
     "TRACE with a body"},
    {"A18", RAW("GET * HTTP/1.1\r\nHost: a\r\n" END), 400, "asterisk target without OPTIONS"},
    {"A18", RAW("OPTIONS * HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A18", RAW("OPTIONS *x HTTP/1.1\r\nHost: a\r\n" END), 400, "malformed request target"},
    {"A18", RAW("BREW / HTTP/1.1\r\nHost: a\r\n" END), 501, "unknown method"},
    {"A18", RAW("get / HTTP/1.1\r\nHost: a\r\n" END), 501, "unknown method"},
    {"A18", RAW("GETX / HTTP/1.1\r\nHost: a\r\n" END), 501, "unknown method"},
    {"A18", RAW("G(T / HTTP/1.1\r\nHost: a\r\n" END), 400, "malformed method"},
    {"A18", RAW("G\xe9T / HTTP/1.1\r\nHost: a\r\n" END), 400, "malformed method"},
    {"A18", RAW("DESCRIBE / HTTP/1.1\r\nHost: a\r\n" END), 501, "unknown method"},
    {"A18", RAW("PROPFIND / HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A18", RAW("M-SEARCH / HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A18", RAW("SOURCE / HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A19", RAW("GET /a#b HTTP/1.1\r\nHost: a\r\n" END), 400, "fragment in the request target"},
    {"A19", RAW("GET /?a#b HTTP/1.1\r\nHost: a\r\n" END), 400, "fragment in the request target"},
    {"A19", RAW("GET /a%2fb HTTP/1.1\r\nHost: a\r\n" END), 400, "escaped slash in the path"},
    {"A19", RAW("GET /a%5cb HTTP/1.1\r\nHost: a\r\n" END), 400, "backslash in the path"},
    {"A19", RAW("GET /a\\b HTTP/1.1\r\nHost: a\r\n" END), 400, "backslash in the path"},
    {"A19", RAW("GET /%00 HTTP/1.1\r\nHost: a\r\n" END), 400, "NUL in the path"},
    {"A19", RAW("GET /%zz HTTP/1.1\r\nHost: a\r\n" END), 400, "broken escape in the path"},
    {"A19", RAW("GET /%c0%af HTTP/1.1\r\nHost: a\r\n" END), 400, "overlong UTF-8 in the path"},
    {"A19", RAW("GET /..;/ HTTP/1.1\r\nHost: a\r\n" END), 400,
     "dot segment with parameters in the path"},
    {"A19", RAW("GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n" END), 400,
     "forbidden byte in the request target"},
    {"A19", RAW("GET /a?\xc3 HTTP/1.1\r\nHost: a\r\n" END), 400,
     "forbidden byte in the request target"},
    {"A19", RAW("GET /a\tb HTTP/1.1\r\nHost: a\r\n" END), 400,
     "forbidden byte in the request target"},
    {"A19", RAW("GET /a?filter[x]={y}|100%&\\ HTTP/1.1\r\nHost: a\r\n" END), 0, NULL},
    {"A20", RAW(H "X_Forwarded_For: 1\r\n" END), 400, "underscore in a header name"},
    {"A20", RAW(H "_: 1\r\n" END), 400, "underscore in a header name"},
    {"P07", RAW(H "Authorization: a\r\nAuthorization: b\r\n" END), 400, "repeated Authorization"},
    {"P07", RAW(H "Content-Type: a\r\ncontent-type: a\r\n" END), 400, "repeated Content-Type"},
    {"P07", RAW(H "User-Agent: a\r\nUser-Agent: a\r\n" END), 400, "repeated User-Agent"},
    {"P07", RAW(H "Referer: a\r\nReferer: a\r\n" END), 400, "repeated Referer"},
    {"P07", RAW(H "Max-Forwards: 1\r\nMax-Forwards: 2\r\n" END), 400, "repeated Max-Forwards"},
    {"P07", RAW(H "Cookie: a\r\nCookie: b\r\nAccept: x\r\nAccept: y\r\nX: 1\r\nX: 2\r\n" END), 0,
     NULL},
    {"A24",
     RAW(H "Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6,7\r\n" END),
     400, "too many Connection options"},
};

static void attack_table(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        int status = take_request(f, row->raw, &moon_head_limits_default);
        if (status != row->status)
            fail_msg("%s: %d (%s), not %d:\n%.*s", row->id, status, f->fault.reason, row->status,
                     MOON_SLICE_ARG(row->raw));
        if (status && row->reason && strcmp(row->reason, f->fault.reason) != 0)
            fail_msg("%s: \"%s\", not \"%s\":\n%.*s", row->id, f->fault.reason, row->reason,
                     MOON_SLICE_ARG(row->raw));
    }
}

// The parser alone, without the scan before it, must refuse them as well.
static void attack_table_without_scan(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        if (moon_slice_starts(row->raw, MOON_SLICE("PRI")))
            continue;
        fixture_reset(f);
        int err =
            moon_request_parse(f->arena, row->raw, &moon_head_limits_default, &f->head, &f->fault);
        if ((err == 0) != (row->status == 0))
            fail_msg("%s: %d (%s):\n%.*s", row->id, err, f->fault.reason, MOON_SLICE_ARG(row->raw));
    }
}

static void reads_all_parts(void **state)
{
    struct fixture *f = *state;
    const struct moon_slice raw =
        MOON_SLICE("\r\nPUT /a/./b%41?x=%2f&y HTTP/1.1\r\nHost: Example.com:81\r\nX-A:b \r\n"
                   "Content-Length: 12\r\nExpect: 100-continue\r\nX-Empty:\r\n\r\nbody");
    assert_int_equal(take_request(f, raw, &moon_head_limits_default), 0);
    assert_int_equal(f->head.method_id, MOON_METHOD_PUT);
    assert_slice(f->head.method, "PUT");
    assert_slice(f->head.target.path, "/a/bA");
    assert_slice(f->head.target.query, "x=%2f&y");
    assert_true(f->head.target.has_query);
    assert_false(f->head.target.is_verbatim);
    assert_slice(f->head.host.host, "Example.com");
    assert_int_equal(f->head.host.port, 81);
    assert_slice(f->head.host_text, "Example.com:81");
    assert_true(f->head.expects_continue);
    assert_true(f->head.keep_alive);
    assert_int_equal(f->head.minor, 1);
    assert_int_equal(f->head.body, MOON_BODY_LENGTH);
    assert_int_equal(f->head.content_length, 12);
    assert_int_equal(f->head.headers.count, 5);
    assert_true(f->head.headers.fields[0].is_verbatim);
    assert_false(f->head.headers.fields[1].is_verbatim);
    assert_slice(f->head.headers.fields[1].value, "b");
    assert_slice(f->head.headers.fields[4].value, "");
}

static void targets(void **state)
{
    struct fixture *f = *state;
    const struct moon_head_limits *limits = &moon_head_limits_default;
    assert_int_equal(take_request(f, MOON_SLICE(H END), limits), 0);
    assert_true(f->head.target.is_verbatim);
    assert_false(f->head.target.has_query);
    assert_int_equal(f->head.body, MOON_BODY_NONE);
    assert_int_equal(take_request(f, MOON_SLICE("GET /? HTTP/1.1\r\nHost: a\r\n" END), limits), 0);
    assert_true(f->head.target.has_query);
    assert_int_equal(f->head.target.query.len, 0);
    assert_int_equal(
        take_request(f, MOON_SLICE("GET http://a?q HTTP/1.1\r\nHost: a\r\n" END), limits), 0);
    assert_int_equal(f->head.target.form, MOON_TARGET_ABSOLUTE);
    assert_slice(f->head.target.path, "/");
    assert_slice(f->head.target.query, "q");
    assert_int_equal(
        take_request(f, MOON_SLICE("GET http://B:80/ HTTP/1.1\r\nHost: b\r\n" END), limits), 0);
    assert_slice(f->head.host_text, "B:80");
    assert_int_equal(f->head.host.port, 80);
    assert_int_equal(
        take_request(f, MOON_SLICE("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n" END), limits), 0);
    assert_slice(f->head.target.path, "*");
    assert_int_equal(take_request(f, MOON_SLICE("OPTIONS * HTTP/1.1\r\nHost: a\r\n" END), limits),
                     0);
    assert_int_equal(f->head.target.form, MOON_TARGET_ASTERISK);
    assert_int_equal(take_request(f, MOON_SLICE("GET / HTTP/1.0\r\n" END), limits), 0);
    assert_int_equal(f->head.host_text.len, 0);
    assert_int_equal(f->head.host.host.len, 0);
}

static void options_of_the_listener(void **state)
{
    struct fixture *f = *state;
    struct moon_head_limits limits = moon_head_limits_default;
    limits.allow_underscore = true;
    assert_int_equal(take_request(f, MOON_SLICE(H "a_b: c\r\n" END), &limits), 0);
    limits.escaped_slash = MOON_SLASH_DECODE;
    assert_int_equal(take_request(f, MOON_SLICE("GET /a%2Fb HTTP/1.1\r\nHost: a\r\n" END), &limits),
                     0);
    assert_slice(f->head.target.path, "/a/b");
    limits.target_bytes = 4;
    assert_int_equal(take_request(f, MOON_SLICE("GET /abc HTTP/1.1\r\nHost: a\r\n" END), &limits),
                     0);
    assert_int_equal(take_request(f, MOON_SLICE("GET /abcd HTTP/1.1\r\nHost: a\r\n" END), &limits),
                     414);
    limits.field_count = 2;
    assert_int_equal(take_request(f, MOON_SLICE(H "A: b\r\n" END), &limits), 0);
    assert_int_equal(take_request(f, MOON_SLICE(H "A: b\r\nC: d\r\n" END), &limits), 431);
    assert_string_equal(f->fault.reason, "too many header fields");
}

static void keeping_the_connection(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct moon_slice raw;
        bool keep_alive, has_upgrade;
    } cases[] = {
        {RAW(H END), true, false},
        {RAW(H "Connection: close\r\n" END), false, false},
        {RAW(H "Connection: x, CLOSE\r\n" END), false, false},
        {RAW(H "Connection: keep-alive\r\nConnection: close\r\n" END), false, false},
        {RAW("GET / HTTP/1.0\r\n" END), false, false},
        {RAW("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n" END), true, false},
        {RAW("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n" END), false, false},
        {RAW("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" END), false, false},
        {RAW(H "Connection: Upgrade\r\nUpgrade: websocket\r\n" END), true, true},
        {RAW(H "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n" END), true, true},
        {RAW(H "Upgrade: websocket\r\n" END), true, false},
        {RAW(H "Connection: upgrade\r\n" END), true, false},
        {RAW(H "Connection: upgrade\r\nUpgrade:\r\n" END), true, false},
        {RAW(H "Connection: upgrade\r\nUpgrade: h2c\r\n" END), true, false},
        {RAW(H "Connection: upgrade, HTTP2-Settings\r\nUpgrade: websocket, H2C\r\nHTTP2-Settings: "
               "AA\r\n" END),
         true, false},
        {RAW(H "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" END), true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(take_request(f, cases[i].raw, &moon_head_limits_default), 0);
        if (f->head.keep_alive != cases[i].keep_alive ||
            f->head.has_upgrade != cases[i].has_upgrade)
            fail_msg("keep_alive %d, has_upgrade %d:\n%.*s", f->head.keep_alive,
                     f->head.has_upgrade, MOON_SLICE_ARG(cases[i].raw));
    }
    assert_int_equal(
        take_request(f, MOON_SLICE(P10 "Expect: 100-continue\r\n" END), &moon_head_limits_default),
        0);
    assert_false(f->head.expects_continue);
}

// What the log shows of a request that was refused.
static void tells_what_was_understood(void **state)
{
    struct fixture *f = *state;
    const struct moon_head_limits *limits = &moon_head_limits_default;
    assert_int_equal(
        take_request(f, MOON_SLICE("GET /a/../%00 HTTP/1.1\r\nHost: a\r\n" END), limits), 400);
    assert_slice(f->head.method, "GET");
    assert_slice(f->head.target.path, "/a/../%00");
    assert_int_equal(f->head.minor, 1);
    assert_int_equal(take_request(f, MOON_SLICE("BREW /pot HTTP/1.0\r\n" END), limits), 501);
    assert_slice(f->head.method, "BREW");
    assert_slice(f->head.target.path, "/pot");
}

static void many_fields(void **state)
{
    struct fixture *f = *state;
    char text[32768];
    for (int count = 98; count <= 101; count++) {
        size_t len = (size_t)snprintf(text, sizeof text, "%s", H);
        for (int i = 1; i < count; i++)
            len += (size_t)snprintf(text + len, sizeof text - len, "X-%d: %d\r\n", i, i);
        len += (size_t)snprintf(text + len, sizeof text - len, "\r\n");
        int status = take_request(f, (struct moon_slice){text, len}, &moon_head_limits_default);
        assert_int_equal(status, count <= 100 ? 0 : 431);
    }
}

static void arena_too_small(void **state)
{
    struct fixture *f = *state;
    struct moon_arena *arena = moon_arena_new(f->pool, 32);
    int err = moon_request_parse(arena, MOON_SLICE(H END), &moon_head_limits_default, &f->head,
                                 &f->fault);
    assert_int_equal(err, -1);
    assert_int_equal(f->fault.status, 431);
    moon_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(attack_table),
        TEST(attack_table_without_scan),
        TEST(reads_all_parts),
        TEST(targets),
        TEST(options_of_the_listener),
        TEST(keeping_the_connection),
        TEST(tells_what_was_understood),
        TEST(many_fields),
        TEST(arena_too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
