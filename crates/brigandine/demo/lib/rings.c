#include "rings.h"

long rings_in_sheet(int width, int rows)
{
    if (width < 1 || rows < 1)
        return -1;
    /* Every other row is shifted by half a ring and one ring shorter. */
    long full = (rows + 1) / 2, shifted = rows / 2;
    return full * width + shifted * (width - 1);
}

int rings_above(int width, int row, int place)
{
    if (row == 0)
        return 0;
    if (row % 2 == 1)
        return 2;
    return (place > 0) + (place < width - 1);
}
