"""Average precision as the datasets define it: COCO's (`coco`) and Pascal VOC's (`voc`)."""
