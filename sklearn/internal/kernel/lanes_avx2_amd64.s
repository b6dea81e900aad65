#include "textflag.h"

// The smaller loops for AVX2. Each turn computes one vector of 4 float64. In all loops
// DI points to the results, SI to the input, and CX is the number of turns left.

// func exp2AVX2(dst, src *float64, n int)
//
// The arithmetic is the same as in rbfAVX2, which explains it. Y0 is x, then r; Y1 is
// n; Y2 is the polynomial; R14 points to exp2Wide.
TEXT ·exp2AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	LEAQ ·exp2Wide(SB), R14

loop:
	VMOVUPD     (SI), Y0
	VMAXPD      384(R14), Y0, Y0
	VADDPD      416(R14), Y0, Y1
	VSUBPD      416(R14), Y1, Y2
	VSUBPD      Y2, Y0, Y0
	VPSLLQ      $52, Y1, Y1
	VMOVUPD     320(R14), Y2
	VFMADD213PD 288(R14), Y0, Y2
	VFMADD213PD 256(R14), Y0, Y2
	VFMADD213PD 224(R14), Y0, Y2
	VFMADD213PD 192(R14), Y0, Y2
	VFMADD213PD 160(R14), Y0, Y2
	VFMADD213PD 128(R14), Y0, Y2
	VFMADD213PD 96(R14), Y0, Y2
	VFMADD213PD 64(R14), Y0, Y2
	VFMADD213PD 32(R14), Y0, Y2
	VFMADD213PD 0(R14), Y0, Y2
	VFMADD213PD 352(R14), Y0, Y2
	VPADDQ      Y1, Y2, Y2
	VMOVUPD     Y2, (DI)
	ADDQ        $32, SI
	ADDQ        $32, DI
	DECQ        CX
	JNZ         loop
	VZEROUPPER
	RET

// func standardizeAVX2(dst, src *float64, n int, mean, scale float64) bool
//
// Y2 collects v − v for each result v: this is 0 for a finite v, else NaN, which stays
// NaN.
TEXT ·standardizeAVX2(SB), NOSPLIT, $0-41
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSD mean+24(FP), Y14
	VBROADCASTSD scale+32(FP), Y15
	VXORPD       Y2, Y2, Y2

loop:
	VMOVUPD (SI), Y0
	VSUBPD  Y14, Y0, Y0
	VDIVPD  Y15, Y0, Y0
	VMOVUPD Y0, (DI)
	VSUBPD  Y0, Y0, Y1
	VADDPD  Y1, Y2, Y2
	ADDQ    $32, SI
	ADDQ    $32, DI
	DECQ    CX
	JNZ     loop
	VCMPPD  $3, Y2, Y2, Y3 // find a NaN
	VPTEST  Y3, Y3
	SETEQ   ret+40(FP)
	VZEROUPPER
	RET

// func finiteAVX2(x *float64, n int) bool
TEXT ·finiteAVX2(SB), NOSPLIT, $0-17
	MOVQ   x+0(FP), SI
	MOVQ   n+8(FP), CX
	VXORPD Y2, Y2, Y2

loop:
	VMOVUPD (SI), Y0
	VSUBPD  Y0, Y0, Y1
	VADDPD  Y1, Y2, Y2
	ADDQ    $32, SI
	DECQ    CX
	JNZ     loop
	VCMPPD  $3, Y2, Y2, Y3
	VPTEST  Y3, Y3
	SETEQ   ret+16(FP)
	VZEROUPPER
	RET

// func decideAVX2(label, decision, sum *float64, n int, intercept, near float64) bool
//
// Y10 is 1, Y11 −1, Y12 0; Y13 clears signs; Y14 is the intercept, Y15 near. Y2
// collects the lanes whose decision isn't farther from 0 than near, also NaN.
TEXT ·decideAVX2(SB), NOSPLIT, $0-49
	MOVQ         label+0(FP), BX
	MOVQ         decision+8(FP), DI
	MOVQ         sum+16(FP), SI
	MOVQ         n+24(FP), CX
	VBROADCASTSD intercept+32(FP), Y14
	VBROADCASTSD near+40(FP), Y15
	VBROADCASTSD ·exp2Short+48(SB), Y10
	VXORPD       Y12, Y12, Y12
	VSUBPD       Y10, Y12, Y11
	VPCMPEQQ     Y13, Y13, Y13
	VPSRLQ       $1, Y13, Y13
	VXORPD       Y2, Y2, Y2

loop:
	VMOVUPD   (SI), Y0
	VADDPD    Y14, Y0, Y0
	VMOVUPD   Y0, (DI)
	VCMPPD    $0x1e, Y12, Y0, Y1    // above 0; false for NaN
	VBLENDVPD Y1, Y10, Y11, Y1
	VMOVUPD   Y1, (BX)
	VANDPD    Y13, Y0, Y0
	VCMPPD    $0x1a, Y15, Y0, Y3    // not above near, or NaN
	VORPD     Y3, Y2, Y2
	ADDQ      $32, SI
	ADDQ      $32, DI
	ADDQ      $32, BX
	DECQ      CX
	JNZ       loop
	VPTEST    Y2, Y2
	SETEQ     ret+48(FP)
	VZEROUPPER
	RET

// func addScaledAVX2(dst, src *float64, n int, f float64)
//
// Product and sum aren't fused, because the Go code rounds the product too.
TEXT ·addScaledAVX2(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSD f+24(FP), Y15

loop:
	VMULPD  (SI), Y15, Y0
	VADDPD  (DI), Y0, Y0
	VMOVUPD Y0, (DI)
	ADDQ    $32, SI
	ADDQ    $32, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// func transposeAVX2(dst, x *float64, stride, cols, n, width int)
//
// Each turn transposes four rows of up to four columns. x points to the first of these
// columns in the first row, dst to that column; width is the number of columns.
//
//	R9   bytes between columns of dst    R10  bytes between rows of x
//	Y15  the columns that exist      R8   width
TEXT ·transposeAVX2(SB), NOSPLIT, $0-48
	MOVQ    dst+0(FP), DI
	MOVQ    x+8(FP), SI
	MOVQ    stride+16(FP), R9
	SHLQ    $3, R9
	MOVQ    cols+24(FP), R10
	SHLQ    $3, R10
	MOVQ    n+32(FP), DX
	MOVQ    width+40(FP), R8
	LEAQ    columns<>+32(SB), BX
	MOVQ    R8, AX
	SHLQ    $3, AX
	SUBQ    AX, BX
	VMOVUPD (BX), Y15

loop:
	// Rows a…d.
	VMASKMOVPD (SI), Y15, Y0
	ADDQ       R10, SI
	VMASKMOVPD (SI), Y15, Y1
	ADDQ       R10, SI
	VMASKMOVPD (SI), Y15, Y2
	ADDQ       R10, SI
	VMASKMOVPD (SI), Y15, Y3
	ADDQ       R10, SI

	// Pairs of rows: a0 b0 a2 b2 and a1 b1 a3 b3; then all four.
	VUNPCKLPD  Y1, Y0, Y4
	VUNPCKHPD  Y1, Y0, Y5
	VUNPCKLPD  Y3, Y2, Y6
	VUNPCKHPD  Y3, Y2, Y7
	MOVQ       DI, BX
	MOVQ       R8, CX
	VPERM2F128 $0x20, Y6, Y4, Y0
	VMOVUPD    Y0, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VPERM2F128 $0x20, Y7, Y5, Y0
	VMOVUPD    Y0, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VPERM2F128 $0x31, Y6, Y4, Y0
	VMOVUPD    Y0, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VPERM2F128 $0x31, Y7, Y5, Y0
	VMOVUPD    Y0, (BX)

next:
	ADDQ $32, DI
	DECQ DX
	JNZ  loop
	VZEROUPPER
	RET

// columns holds four numbers with the sign bit, then four without.
DATA columns<>+0(SB)/8, $-1
DATA columns<>+8(SB)/8, $-1
DATA columns<>+16(SB)/8, $-1
DATA columns<>+24(SB)/8, $-1
DATA columns<>+32(SB)/8, $0
DATA columns<>+40(SB)/8, $0
DATA columns<>+48(SB)/8, $0
DATA columns<>+56(SB)/8, $0
GLOBL columns<>(SB), RODATA|NOPTR, $64
