/* Runs placement_improve under sanitizers: numbers in by stdin, as tests/firmware/test_placement.py writes them, numbers out. Every
 * array is a block of exactly its size, so one byte too many is seen. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int32_t placement_improve(int32_t count, const int32_t *sizes, const int32_t *begin, const void *barred, const uint32_t *words,
                          uint32_t word_count, int32_t tries, int32_t enough, int32_t *order, int32_t *best, int32_t *scratch);

static int32_t *numbers(int32_t count)
{
    int32_t *block = malloc((size_t)count * sizeof(int32_t));
    if (block == NULL || fread(block, sizeof(int32_t), (size_t)count, stdin) != (size_t)count) {
        exit(2);
    }
    return block;
}

int main(void)
{
    int32_t *head = numbers(5); /* buffers, barred offsets, words of dice, tries, enough */
    const int32_t count = head[0];
    int32_t *sizes = numbers(count), *begin = numbers(count + 1), *barred = numbers(3 * head[1]), *dice = numbers(head[2]);
    int32_t *order = numbers(count), *best = malloc((size_t)count * sizeof(int32_t));
    int32_t *scratch = malloc(6 * (size_t)count * sizeof(int32_t));
    printf("%d", placement_improve(count, sizes, begin, barred, (uint32_t *)dice, (uint32_t)head[2], head[3], head[4], order, best,
                                   scratch));
    for (int32_t n = 0; n < count; n++) {
        printf(" %d", best[n]);
    }
    int32_t *blocks[] = {head, sizes, begin, barred, dice, order, best, scratch};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        free(blocks[i]);
    }
    return 0;
}
