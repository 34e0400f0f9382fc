/* What depends on the model: itself, executed in place; the runtime's work memory between two guards that nobody may
 * touch; room for the boxes it may find (12 bytes each), counters of average precision (4 bytes each), two places for models that
 * come over the link, and, in a profiling build, one counter a node (8 bytes each).
 */
    .syntax unified

    .section .model, "a"
    .balign 16
    .global app_model, app_model_end
app_model:
    .incbin "model.tess"
app_model_end:

    .section APP_ARENA_SECTION, "aw", %nobits
    .balign 16
    .global app_arena, app_arena_end
    .space 16
app_arena:
    .space APP_ARENA_SIZE
    .balign 16
app_arena_end:
    .space 16

    .section .bss.app_storage, "aw", %nobits
    .balign 8
    .global app_profile, app_profile_end, app_boxes, app_boxes_end
app_profile:
    .space 8 * APP_PROFILE_NODES
app_profile_end:
app_boxes:
    .space 12 * APP_MAX_BOXES
app_boxes_end:

    .section .counters, "aw", %nobits
    .balign 4
    .global app_counters, app_counters_end
app_counters:
    .space 4 * APP_COUNTERS
app_counters_end:

    .section .noinit.app_places, "aw", %nobits
    .balign 32
    .global app_places, app_places_middle, app_places_end
app_places:
    .space APP_PLACE_SIZE
app_places_middle:
    .space APP_PLACE_SIZE
app_places_end:
