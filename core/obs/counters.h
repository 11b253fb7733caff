// Counters and gauges of one worker. Each is written by its worker alone (a relaxed load and store, no locked instruction) and
// read by whoever sums them up; the struct fills whole cache lines so that two workers never share one.
#pragma once

#include <stdatomic.h>
#include <stdint.h>

// X(name, type, help): the Prometheus name is moongate_<name>.
#define MOON_COUNTERS(X)                                                                           \
    X(connections_live, "gauge", "Downstream connections open now")                                \
    X(connections_total, "counter", "Downstream connections accepted")                             \
    X(exchanges_live, "gauge", "Exchanges not ended yet, their log phase included")                \
    X(arenas_live, "gauge", "Exchange arenas not freed yet")                                       \
    X(pipes_live, "gauge", "Pipes in use for splice")                                              \
    X(tunnels_live, "gauge", "Upgraded and TCP connections relayed")                               \
    X(relay_client_bytes_total, "counter",                                                         \
      "Bytes that clients sent through tunnels and TCP routes")                                    \
    X(relay_upstream_bytes_total, "counter", "Bytes that upstreams sent through them")             \
    X(websockets_live, "gauge", "Of the tunnels, those that speak WebSocket")                      \
    X(websockets_total, "counter", "Tunnels that spoke WebSocket begun")                           \
    X(websocket_closes_total, "counter", "Close frames that the gateway sent of its own")          \
    X(websocket_messages_total, "counter", "WebSocket messages that a function has seen")          \
    X(tcp_failures_total, "counter", "Connections of TCP routes that no endpoint took")            \
    X(udp_sessions_live, "gauge", "Sessions of UDP routes now")                                    \
    X(udp_sessions_total, "counter", "Sessions of UDP routes begun")                               \
    X(udp_datagrams_in_total, "counter", "Datagrams that clients sent")                            \
    X(udp_datagrams_out_total, "counter", "Datagrams that endpoints sent back")                    \
    X(udp_dropped_total, "counter", "Datagrams that were not passed on")                           \
    X(upstream_connections_live, "gauge", "Upstream connections open now")                         \
    X(upstream_connects_total, "counter", "Upstream connections attempted")                        \
    X(upstream_idle, "gauge", "Upstream connections waiting in a pool")                            \
    X(upstream_replays_total, "counter", "Requests sent again after a reused connection died")     \
    X(upstream_connect_failures_total, "counter", "Upstream connections that failed")              \
    X(upstream_no_port_total, "counter", "Upstream connections without a free local port")         \
    X(upstream_pending, "gauge", "Exchanges waiting at the limit of an upstream")                  \
    X(upstream_pending_refused_total, "counter", "Exchanges refused at the limit of an upstream")  \
    X(upstream_retries_total, "counter", "Attempts made because a route retries")                  \
    X(upstream_h2_connections_total, "counter", "Upstream connections that spoke HTTP/2")          \
    X(upstream_streams_live, "gauge", "Streams of HTTP/2 to upstreams open now")                   \
    X(upstream_streams_total, "counter", "Streams of HTTP/2 to upstreams opened")                  \
    X(upstream_streams_refused_total, "counter", "Of these, those that the peer did not begin")    \
    X(upstream_h2_ended_total, "counter", "Connections of HTTP/2 ended because of their upstream") \
    X(calls_live, "gauge", "Requests of the gateway's own under way")                              \
    X(calls_total, "counter", "Requests of the gateway's own begun")                               \
    X(call_failures_total, "counter", "Requests of the gateway's own that got no response")        \
    X(script_errors_total, "counter", "Functions of scripts that failed")                          \
    X(script_traces_total, "counter", "Pieces of scripts that were compiled")                      \
    X(script_trace_aborts_total, "counter", "Pieces of scripts that could not be compiled")        \
    X(coroutines_live, "gauge", "Functions of scripts that run or wait now")                       \
    X(lua_states, "gauge", "Lua states that workers hold, those of old generations included")      \
    X(h2_connections_total, "counter", "Downstream connections that spoke HTTP/2")                 \
    X(h2_streams_live, "gauge", "Streams of HTTP/2 open now")                                      \
    X(h2_streams_total, "counter", "Streams of HTTP/2 opened")                                     \
    X(h2_streams_stalled_total, "counter", "Streams reset because their client took too little")   \
    X(h2_ended_protocol, "counter", "Connections of HTTP/2 ended because of their client")         \
    X(h2_ended_resets, "counter", "Connections of HTTP/2 ended because of their client")           \
    X(h2_ended_fields, "counter", "Connections of HTTP/2 ended because of their client")           \
    X(h2_ended_control, "counter", "Connections of HTTP/2 ended because of their client")          \
    X(h2_ended_continuations, "counter", "Connections of HTTP/2 ended because of their client")    \
    X(accept_paused_total, "counter", "Times accepting paused for want of descriptors")            \
    X(refused_proxy_untrusted, "counter", "Connections closed before a request")                   \
    X(refused_proxy_malformed, "counter", "Connections closed before a request")                   \
    X(refused_proxy_cut, "counter", "Connections closed before a request")                         \
    X(refused_proxy_timeout, "counter", "Connections closed before a request")                     \
    X(refused_listener_limit, "counter", "Connections closed before a request")                    \
    X(refused_client_limit, "counter", "Connections closed before a request")                      \
    X(refused_handshake_limit, "counter", "Connections closed before a request")                   \
    X(refused_client_handshake_limit, "counter", "Connections closed before a request")            \
    X(refused_loop, "counter", "Connections closed before a request")                              \
    X(refused_hello_malformed, "counter", "Connections closed before a request")                   \
    X(refused_hello_oversize, "counter", "Connections closed before a request")                    \
    X(refused_hello_cut, "counter", "Connections closed before a request")                         \
    X(refused_hello_timeout, "counter", "Connections closed before a request")                     \
    X(refused_hello_name, "counter", "Connections closed before a request")                        \
    X(refused_first_bytes, "counter", "Connections closed before a request")                       \
    X(refused_preread, "counter", "Connections closed before a request")                           \
    X(refused_preread_timeout, "counter", "Connections closed before a request")                   \
    X(detected_tls, "counter", "Connections to ports that detect, by what they spoke")             \
    X(detected_h2, "counter", "Connections to ports that detect, by what they spoke")              \
    X(detected_http1, "counter", "Connections to ports that detect, by what they spoke")           \
    X(detected_opaque, "counter", "Connections to ports that detect, by what they spoke")          \
    X(detected_silent, "counter", "Connections to ports that detect, by what they spoke")          \
    X(tls_handshakes_total, "counter", "TLS handshakes of clients that were done")                 \
    X(tls_resumed_total, "counter", "Of these, sessions resumed by ticket")                        \
    X(tls_stapled_total, "counter", "Of these, with an OCSP response")                             \
    X(tls_failures_plaintext, "counter", "TLS handshakes of clients that failed")                  \
    X(tls_failures_closed, "counter", "TLS handshakes of clients that failed")                     \
    X(tls_failures_refused, "counter", "TLS handshakes of clients that failed")                    \
    X(tls_failures_certificate, "counter", "TLS handshakes of clients that failed")                \
    X(tls_failures_protocol, "counter", "TLS handshakes of clients that failed")                   \
    X(tls_failures_timeout, "counter", "TLS handshakes of clients that failed")                    \
    X(tls_failures_declined, "counter", "TLS handshakes of clients that failed")                   \
    X(tls_failures_script, "counter", "TLS handshakes of clients that failed")                     \
    X(tls_on_plain_total, "counter", "Connections that spoke TLS to a port without it")            \
    X(spliced_bytes_total, "counter", "Body bytes moved inside the kernel")                        \
    X(responses_1xx, "counter", "Interim responses sent")                                          \
    X(responses_2xx, "counter", "Responses sent")                                                  \
    X(responses_3xx, "counter", "Responses sent")                                                  \
    X(responses_4xx, "counter", "Responses sent")                                                  \
    X(responses_5xx, "counter", "Responses sent")                                                  \
    X(aborts_total, "counter", "Exchanges that ended without a whole response")                    \
    X(access_log_lines_total, "counter", "Lines handed to the access log")                         \
    X(access_log_dropped_total, "counter",                                                         \
      "Lines lost: the access log could not be written fast enough")

struct moon_counters {
#define X(name, type, help) _Atomic uint64_t name;
    _Alignas(64) MOON_COUNTERS(X)
#undef X
};

static inline void moon_count_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void moon_count_set(_Atomic uint64_t *gauge, uint64_t value)
{
    atomic_store_explicit(gauge, value, memory_order_relaxed);
}

static inline void moon_count_up(_Atomic uint64_t *counter)
{
    moon_count_add(counter, 1);
}

static inline void moon_count_down(_Atomic uint64_t *gauge)
{
    moon_count_add(gauge, (uint64_t)-1);
}
