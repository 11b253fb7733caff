// moongate.settings { ... }: what holds for the whole gateway. Durations are seconds in scripts, milliseconds here.
#pragma once

#include "base/address.h"
#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_settings {
    uint32_t workers; // 0: one a CPU
    struct {
        uint32_t header_bytes, header_count, target_bytes; // 32768, 100, 16384
        // process-wide body buffers; 0: a quarter of the memory, at most 1 GiB
        uint64_t buffer_bytes;
        // downstream, process-wide; 0: what the descriptors allow
        uint32_t connections;
    } limits;
    struct {
        uint32_t connect_ms, response_ms, idle_ms, request_head_ms; // 5 s, 60 s, 75 s, 10 s
        uint32_t upstream_idle_ms;                                  // 60 s: pooled links
        uint32_t upstream_ping_ms; // 10 s: silence of an upstream of HTTP/2 until it is asked
        uint32_t body_ms;          // 30 s: a stalled body (no byte either way) ends the exchange
        uint32_t drain_ms;         // 30 s
        uint32_t linger_ms;        // 2 s
        uint32_t handshake_ms;     // 10 s: TLS, of clients
        uint32_t preread_ms;       // 30 s: all functions of a connection together
    } timeouts;
    struct {
        struct moon_address *servers; // none: /etc/resolv.conf
        uint32_t server_count;
        uint32_t timeout_ms;  // 1 s: one try at one server
        uint32_t negative_ms; // 5 s: until a name that is not there is asked for again
        uint32_t stale_ms;    // old addresses serve so long without a new answer; 0: without limit
    } resolver;
    // bytes a second that a request body must average after a grace of 10 s; 0: none. Default 240
    uint32_t body_rate;
    // requests a downstream connection may carry: 0: no bound. Default 0
    uint32_t keepalive_requests;
    bool via, forwarded, request_id; // send Via / Forwarded / X-Request-Id upstream; off by default
    // proxies in front whose X-Forwarded-* are believed; 0: inbound ones are replaced
    uint32_t trusted_hops;
    bool splice;                 // move long bodies inside the kernel; on by default
    char *tls_key_log;           // file for secrets of connections; NULL: none
    char *state;                 // directory of the last good configuration; NULL: it is not kept
    struct moon_slice log_level; // "debug", "info", "warn", "error"; default "info"
};

extern const struct moon_section moon_settings_section; // part: struct moon_settings *

const struct moon_settings *moon_snapshot_settings(const struct moon_snapshot *snapshot);
