/*
 * Between link_serve.c and its parts. Private.
 */
#ifndef LINK_RUN_H
#define LINK_RUN_H

#include "link.h"

// How a request ended; the fields of RESULT.
typedef struct link_result {
    int status;                 // enum tess_err or enum link_status
    uint16_t boxes;
    uint16_t broken;            // somebody wrote beside the work memory
    uint64_t run, detect;       // counted by the meter
    uint32_t stack, touched;
} link_result_t;

// Each answers one message that holds no more than its fields; all return 0, LINK_OVER or LINK_CLOSED.
int link_serve_run(link_server_t *server, const link_message_t *message);
int link_serve_selftest(link_server_t *server, uint16_t request);
int link_serve_load(link_server_t *server, uint16_t request, uint32_t size);
int link_serve_info(link_server_t *server, uint16_t request);

// What becomes of the boxes of the last picture: link_found.c, link_score.c, link_follow.c.
int link_serve_found(link_server_t *server, const link_message_t *message);
int link_serve_score(link_server_t *server, const link_message_t *message);
int link_serve_tell(link_server_t *server, const link_message_t *message);
int link_serve_track(link_server_t *server, const link_message_t *message);

// Says whether config->boxes holds what request `run` of this session found: 0 or LINK_ERR_FOUND.
int link_found(const link_server_t *server, uint16_t run);

// Sends RESULT.
int link_send_result(link_server_t *server, uint16_t request, const link_result_t *result);

// Opens the best model there is: the newest of the store that opens, else the image's own. Sets model, size, place and status.
void link_open_model(link_server_t *server);

#endif
